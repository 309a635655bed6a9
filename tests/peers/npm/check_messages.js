// Holds recorded messages (record.js) against the published JSON Schemas, by ajv for 2020-12 in strict mode, and against
// what a schema does not say: each schema has one set of keys and types, each message is flat, and MQTT 5 names its schema.
// A request (`cmd/<name>`) is held against the schema of that command, which knows its arguments; who asks writes it.
// Prints {"seen": {schema: count}, "findings": [...]}.
//
//   node check_messages.js SCHEMA_FOLDER RECORDED...

const fs = require('fs');
const path = require('path');
const Ajv = require('ajv/dist/2020').default;
const addFormats = require('ajv-formats').default;

const [folder, ...recorded] = process.argv.slice(2);
const ajv = addFormats(new Ajv({ strict: true, allErrors: true, validateFormats: true }));
const validators = {};
for (const file of fs.readdirSync(folder)) {
  const schema = JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'));
  validators[schema.$id.replace('urn:strip-agent:', '')] = ajv.compile(schema);
}

const seen = {};
const shapes = {};
const findings = [];

function shape(message) {
  return Object.entries(message).map(([key, value]) => `${key}=${value === null ? 'null' : typeof value}`).join(' ');
}

function look({ topic, json, error, properties }) {
  if (error || typeof json !== 'object' || json === null) {
    return [`${topic}: no JSON object: ${error}`];
  }
  const [, command] = topic.match(/\/cmd\/(\w+)$/) || [];
  const name = command ? `${json.schema}:${command}` : json.schema;
  const validate = validators[name];
  if (!validate) {
    return [`${topic}: there is no schema ${name}`];
  }
  seen[json.schema] = (seen[json.schema] || 0) + 1;
  const found = validate(json) ? [] : [`${topic}: ${ajv.errorsText(validate.errors)}`];
  if (command) {
    return found;
  }
  const mine = shape(json);
  shapes[json.schema] ??= mine;
  if (mine !== shapes[json.schema] || / (\w+)=(null|object)/.test(` ${mine}`)) {
    found.push(`${topic}: another shape than before, or none that is flat: ${mine}`);
  }
  const named = properties?.userProperties?.schema;
  if (properties && named !== json.schema) {
    found.push(`${topic}: the user property says ${named}, the message ${json.schema}`);
  }
  return found;
}

for (const file of recorded) {
  for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
    const message = JSON.parse(line);
    if (message.kind === 'message') {
      findings.push(...look(message));
    }
  }
}
console.log(JSON.stringify({ seen, findings }));
