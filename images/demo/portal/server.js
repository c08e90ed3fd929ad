'use strict';

// Portald: a web page that shows the students and grades of GradingService.
// It needs Node 18 or newer and no packages. Environment: see settings.js.

const http = require('node:http');
const { SidecarLog } = require('./log');
const { Portal } = require('./portal');
const { readSettings } = require('./settings');

const SHUTDOWN_MS = 5000; // for requests in flight
const FLUSH_MS = 2000; // for log messages not sent yet
const LIMITS = {
  headersTimeout: 5000,
  requestTimeout: 10000,
  keepAliveTimeout: 5000,
  connectionsCheckingInterval: 2000,
  maxHeaderSize: 16 * 1024,
};

function main() {
  let settings;
  try {
    settings = readSettings(process.env);
  } catch (error) {
    console.error(`portald: ${error.message}`);
    process.exitCode = 2;
    return;
  }
  const log = new SidecarLog(settings.sidecarUrl);
  const portal = new Portal(settings.sidecarUrl, log);
  const server = http.createServer(LIMITS, (request, response) => portal.handle(request, response));
  server.on('error', (error) => {
    console.error(`portald: cannot listen: ${error.message}; set PORT to a free port`);
    process.exitCode = 1;
  });
  server.listen(settings.port, settings.host || undefined, () => {
    const { port } = server.address();
    console.log(`listening on http://127.0.0.1:${port}`);
    log.send(`started: port ${port}`);
    // Once: a second signal ends the process at once.
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => stop(server, log));
  });
}

/** Stop accepting, finish what is in flight, send the last log lines, exit 0. */
async function stop(server, log) {
  const slow = setTimeout(() => server.closeAllConnections(), SHUTDOWN_MS);
  await new Promise((resolve) => {
    server.close(resolve);
    // Node 18 leaves connections open that wait for another request.
    const idle = setInterval(() => server.closeIdleConnections(), 50);
    server.on('close', () => clearInterval(idle));
    server.closeIdleConnections();
  });
  clearTimeout(slow);
  log.send('stopped');
  await log.close(FLUSH_MS);
  process.exit(0);
}

main();
