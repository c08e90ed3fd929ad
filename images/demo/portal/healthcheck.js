'use strict';

// Exit 0 if the Portald on this port is alive, else 1 with the reason.

const { send } = require('./outgoing');
const { readSettings } = require('./settings');

async function main() {
  const { host, port } = readSettings(process.env);
  const everywhere = ['', '0.0.0.0', '::'].includes(host);
  const { status } = await send('GET', `http://${everywhere ? '127.0.0.1' : host}:${port}/livez`, { timeoutMs: 2000 });
  if (status !== 200) throw new Error(`/livez answered ${status}`);
}

main().catch((error) => {
  console.error(`portald: ${error.message}`);
  process.exitCode = 1;
});
