// A Sparkplug host on Eclipse Tahu's decoder. Appends each message of an edge node, decoded, as one JSON object on each
// line; behind the first DDATA it asks for the births again and writes what `write` names.
//
//   node sparkplug_host.js '{"url": "mqtt://127.0.0.1:1883", "group": "plant1", "out": "f", "rebirth": true,
//                            "write": {"name": "Device Control/Rescan", "type": "Boolean", "value": true}}'

const fs = require('fs');
const mqtt = require('mqtt');
const tahu = require('sparkplug-payload').get('spBv1.0');

const { url, group, out, rebirth, write } = JSON.parse(process.argv[2]);
const tell = (facts) => fs.appendFileSync(out, `${JSON.stringify(facts)}\n`);
const number = (value) => (value && value.toNumber ? value.toNumber() : value ?? null);
const publish = (topic, metrics) =>
  client.publish(topic, Buffer.from(tahu.encodePayload({ timestamp: Date.now(), metrics })), { qos: 0 });
let asked = false;

const client = mqtt.connect(url, { protocolVersion: 5, clean: true, reconnectPeriod: 500 });
client.on('connect', () => {
  // As published, or a birth that is retained could not be told from another.
  client.subscribe(`spBv1.0/${group}/#`, { qos: 1, rap: true }, (error) => tell({ kind: 'subscribed', error }));
});
client.on('message', (topic, payload, packet) => {
  const [, , type, node, device] = topic.split('/');
  if (['STATE', 'NCMD', 'DCMD'].includes(type)) {
    return;
  }
  const message = { kind: 'message', type, device: device ?? '', qos: packet.qos, retain: packet.retain };
  try {
    const decoded = tahu.decodePayload(payload);
    message.timestamp = number(decoded.timestamp);
    message.seq = number(decoded.seq);
    message.metrics = (decoded.metrics ?? []).map((metric) => ({
      name: metric.name ?? null,
      alias: number(metric.alias),
      type: metric.type,
      timestamp: number(metric.timestamp),
      value: metric.isNull ? null : number(metric.value),
      historical: Boolean(metric.isHistorical),
      quality: metric.properties && metric.properties.Quality ? number(metric.properties.Quality.value) : null,
    }));
  } catch (error) {
    message.error = String(error);
  }
  tell(message);
  if (type === 'DDATA' && !asked) {
    asked = true;
    if (rebirth) {
      publish(`spBv1.0/${group}/NCMD/${node}`, [{ name: 'Node Control/Rebirth', type: 'Boolean', value: true }]);
    }
    if (write) {
      publish(`spBv1.0/${group}/DCMD/${node}/${device}`, [write]);
    }
  }
});
process.on('SIGTERM', () => client.end(false, {}, () => process.exit(0)));
