// Reads an AsyncAPI document with AsyncAPI's own parser. Prints {"version", "diagnostics": [...], "operations": [...]}:
// of each operation its action, its address, and the keys of its message.
//
//   node check_asyncapi.js FILE

const { Parser, fromFile } = require('@asyncapi/parser');

const SEVERITIES = ['error', 'warning', 'info', 'hint'];

async function main() {
  const { document, diagnostics } = await fromFile(new Parser(), process.argv[2]).parse();
  const said = diagnostics.map((d) => `${SEVERITIES[d.severity]} ${d.code} ${d.path.join('.')}: ${d.message}`);
  const operations = [];
  for (const operation of document ? document.operations().all() : []) {
    for (const channel of operation.channels().all()) {
      for (const message of operation.messages().all()) {
        const keys = Object.keys(message.payload().properties() || {});
        operations.push({ action: operation.action(), address: channel.address(), message: message.name(), keys });
      }
    }
  }
  console.log(JSON.stringify({ version: document ? document.version() : '', diagnostics: said, operations }));
}

main();
