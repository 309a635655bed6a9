// Opens a page in Debian's Chromium, waits for texts and for pictures that have loaded, and keeps a screenshot.
// Prints {"text": what the page says, "pictures": [{"src", "width"}], "drawn": [share]}: of each canvas, how much of its
// width lies between the first and the last pixel of a colour.
//
//   node look.js CHROMIUM URL SCREENSHOT.png '[red, green, blue]' TEXT...

const { chromium } = require('playwright-core');

const [executablePath, url, screenshot, colour, ...texts] = process.argv.slice(2);
const PATIENCE_MS = 120000;

// Runs in the page: the share of a canvas's width that one colour spans.
function spans(wanted) {
  return [...document.querySelectorAll('canvas')].map((canvas) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const columns = [];
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] > 200 && wanted.every((value, channel) => Math.abs(data[at + channel] - value) < 12)) {
        columns.push((at / 4) % canvas.width);
      }
    }
    columns.sort((a, b) => a - b);
    return columns.length ? (columns[columns.length - 1] - columns[0]) / canvas.width : 0;
  });
}

async function main() {
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
    await page.goto(url, { timeout: PATIENCE_MS });
    for (const text of texts) {
      await page.getByText(text).first().waitFor({ timeout: PATIENCE_MS });
    }
    await page.waitForFunction(
      () => document.images.length > 0 && [...document.images].every((image) => image.complete && image.naturalWidth > 0),
      null,
      { timeout: PATIENCE_MS },
    );
    // Until the chart has been drawn to its end, two pictures of the page in a row are the same.
    let before = Buffer.alloc(0);
    let now = await page.screenshot();
    for (let turn = 0; turn < 60 && !now.equals(before); turn += 1) {
      await page.waitForTimeout(250);
      [before, now] = [now, await page.screenshot({ path: screenshot })];
    }
    const pictures = await page.evaluate(() => [...document.images].map((i) => ({ src: i.src, width: i.naturalWidth })));
    const drawn = await page.evaluate(spans, JSON.parse(colour));
    console.log(JSON.stringify({ text: await page.innerText('body'), pictures, drawn }));
  } finally {
    await browser.close();
  }
}

main();
