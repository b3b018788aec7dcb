// The unmodified official JavaScript client (aws-iot-device-sdk-v2) as a component that does what the matrix says.
//
//     js_driver.js CONTROL_SOCKET ROLE
//
// Protocol: JSON lines on the control socket, one answer for each command (tools/ipc_matrix/control.py). Requests and
// answers travel as the wire's JSON; the package's own model functions make its objects from them and back.
"use strict";
const net = require("net");
const readline = require("readline");
const ipc = require("aws-iot-device-sdk-v2/dist/greengrasscoreipc");
const rpc = require("aws-iot-device-sdk-v2/dist/eventstream_rpc");
const model = require("aws-iot-device-sdk-v2/dist/greengrasscoreipc/model_utils");

const clients = new Map(); // token -> a promise of the client
const subscriptions = new Map(); // id -> {operation, events, waiting}

function client(token) {
  if (!clients.has(token)) clients.set(token, connect(token));
  return clients.get(token);
}

async function connect(token) {
  const config = ipc.createDefaultClientConfig();
  if (token) {
    config.connectTransform = async (options) => {
      options.message.payload = JSON.stringify({ authToken: token });
      return options.message;
    };
  }
  const made = ipc.createClient(config);
  await made.connect();
  return made;
}

async function method(command) {
  const name = command.operation[0].toLowerCase() + command.operation.slice(1);
  const owner = await client(command.token);
  if (typeof owner[name] !== "function") throw { missing: `aws-iot-device-sdk-v2 has no operation ${name}` };
  const read = model["deserialize" + command.shapes[0]];
  const request = read ? read(command.request) : command.request;
  for (const member of command.maps) {
    if (request[member] && !(request[member] instanceof Map)) request[member] = new Map(Object.entries(request[member]));
  }
  return owner[name].bind(owner, request);
}

function wire(shape, value) {
  const write = model["normalize" + shape];
  return write ? write(value) : value;
}

const todo = {
  async call(command) {
    const perform = await method(command);
    return wire(command.shapes[1], await perform());
  },
  async subscribe(command) {
    const open = await method(command);
    const operation = open();
    const kept = { operation, events: [], waiting: null };
    operation.on("message", (event) => {
      const value = { event: wire(command.shapes[2], event) };
      if (kept.waiting) kept.waiting(value);
      else kept.events.push(value);
    });
    operation.on("streamError", (error) => kept.events.push({ error }));
    const response = await operation.activate();
    subscriptions.set(command.id, kept);
    return wire(command.shapes[1], response);
  },
  async event(command) {
    const kept = subscriptions.get(command.id);
    if (!kept.events.length) {
      const next = new Promise((resolve) => (kept.waiting = resolve));
      let timer;
      const late = new Promise((resolve) => (timer = setTimeout(resolve, command.timeout_s * 1000, null)));
      const found = await Promise.race([next, late]);
      clearTimeout(timer);
      kept.waiting = null;
      if (!found) throw { late: true };
      kept.events.push(found);
    }
    const found = kept.events.shift();
    if (found.error) throw found.error;
    return found.event;
  },
  async close(command) {
    await subscriptions.get(command.id).operation.close();
    subscriptions.delete(command.id);
    return {};
  },
};

async function answer(command) {
  try {
    return { ok: await todo[command.do](command) };
  } catch (error) {
    if (error.missing) return { missing: error.missing };
    if (error.late) return { error: "client:NoEvent", message: "no event came in time" };
    if (error.serviceError) return { error: error.serviceError._errorCode, message: error.serviceError.message };
    const kind = error.type === undefined ? error.name : rpc.RpcErrorType[error.type];
    return { error: `client:${kind}`, message: `${error.message} ${error.internalError || ""}` };
  }
}

const [path, role] = process.argv.slice(2);
const control = net.createConnection(path, () => control.write(JSON.stringify({ role }) + "\n"));
control.on("close", () => process.exit(0));
let before = Promise.resolve();
readline.createInterface({ input: control }).on("line", (line) => {
  before = before.then(async () => control.write(JSON.stringify(await answer(JSON.parse(line))) + "\n"));
});
