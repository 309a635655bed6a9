// aedes, a broker for Node.js that knows MQTT 3.1.1 and no 5.   node aedes_broker.js PORT

const net = require('net');
const { Aedes } = require('aedes');

async function main() {
  const broker = await Aedes.createBroker();
  net.createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1');
}

main();
