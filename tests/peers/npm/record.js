// A subscriber as people write one with npm's mqtt: QoS 1, a fixed client id, a session that outlives the connection.
// Appends each message, with what MQTT says beside the payload, as one JSON object on each line.
//
//   node record.js '{"url": "mqtt://127.0.0.1:1883", "clientId": "a", "protocolVersion": 5, "topics": ["x/#"], "out": "f"}'

const fs = require('fs');
const mqtt = require('mqtt');

const { out, topics, ...connection } = JSON.parse(process.argv[2]);
const options = { clean: false, keepalive: 15, reconnectPeriod: 500, ...connection };
if (options.protocolVersion === 5) {
  options.properties = { sessionExpiryInterval: 3600 };
}
const utf8 = new TextDecoder('utf-8', { fatal: true });
const write = (facts) => fs.appendFileSync(out, `${JSON.stringify(facts)}\n`);

const client = mqtt.connect(options.url, options);
client.on('connect', (answer) => {
  // A session that is there still has its subscriptions; another client would subscribe anyway, which costs nothing.
  client.subscribe(topics, { qos: 1 }, (error, granted) => {
    write({ kind: 'subscribed', session: answer.sessionPresent, error: error && String(error), granted });
  });
});
client.on('error', (error) => write({ kind: 'error', error: String(error) }));
client.on('message', (topic, payload, packet) => {
  const message = { kind: 'message', topic, qos: packet.qos, retain: packet.retain, properties: packet.properties };
  try {
    message.text = utf8.decode(payload);
    message.json = JSON.parse(message.text); // refuses NaN and Infinity
  } catch (error) {
    message.error = String(error);
  }
  write(message);
});
process.on('SIGTERM', () => client.end(false, {}, () => process.exit(0)));
