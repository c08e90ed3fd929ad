'use strict';

// One outgoing HTTP request with a bound on its time and on the size of the answer.
// Not fetch(): it refuses port 6000, where GradingService usually listens.

const http = require('node:http');

const MAX_BYTES = 1024 * 1024;

/**
 * Send one request and read the whole answer.
 *
 * @param {string} method
 * @param {string} url
 * @param {{timeoutMs: number, body?: string, type?: string, accept?: string}} options timeoutMs is for all of it.
 * @returns {Promise<{status: number, text: string}>}
 * @throws {Error} With a reason that a person can read; `sent` is false if the other side cannot have seen the request.
 */
function send(method, url, { timeoutMs, body, type, accept = 'application/json' }) {
  return new Promise((resolve, reject) => {
    const headers = { Accept: accept };
    if (body !== undefined) {
      headers['Content-Type'] = type;
      headers['Content-Length'] = Buffer.byteLength(body);
    }
    // No agent: a connection that was kept open could belong to an instance that has gone.
    const request = http.request(url, { method, headers, agent: false });
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)), timeoutMs);
    let connected = false;
    request.on('socket', (socket) => socket.once('connect', () => { connected = true; }));

    const fail = (error) => {
      clearTimeout(timer);
      const reason = new Error(readable(error));
      reason.sent = connected;
      reject(reason);
    };
    request.on('error', fail);
    request.on('response', (response) => {
      const chunks = [];
      let size = 0;
      response.on('data', (chunk) => {
        size += chunk.length;
        chunks.push(chunk);
        if (size > MAX_BYTES) request.destroy(new Error(`the answer is larger than ${MAX_BYTES} bytes`));
      });
      response.on('error', fail);
      response.on('end', () => {
        clearTimeout(timer);
        resolve({ status: response.statusCode, text: Buffer.concat(chunks).toString('utf8') });
      });
    });
    request.end(body);
  });
}

/** Say a socket error in words. */
function readable(error) {
  const words = {
    ECONNREFUSED: 'the connection was refused',
    ECONNRESET: 'the connection broke off',
    EHOSTUNREACH: 'there is no route to it',
    ENOTFOUND: 'its host name is not known',
  };
  return words[error.code] || error.message;
}

/** Parse JSON; undefined for a text that is none. */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

module.exports = { send, parseJson };
