'use strict';

const MAX_BYTES = 16 * 1024;

/** A form that cannot be read; `status` is 400, 413 or 415. */
class BadForm extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Read a form that was posted.
 *
 * @param {import('node:http').IncomingMessage} request Its server bounds how long the body may take.
 * @returns {Promise<URLSearchParams>}
 * @throws {BadForm} If it is too large, broke off or is no form.
 */
function readForm(request) {
  return new Promise((resolve, reject) => {
    // What is left of a refused body is read and thrown away, so that the client gets to see the answer.
    const refuse = (status, message) => {
      request.removeAllListeners('data').resume();
      reject(new BadForm(status, message));
    };
    const type = (request.headers['content-type'] || '').split(';')[0].trim().toLowerCase();
    if (type !== 'application/x-www-form-urlencoded') {
      refuse(415, 'Send a form: use the one on the page.');
      return;
    }
    const chunks = [];
    let size = 0;
    request.on('data', (chunk) => {
      size += chunk.length;
      chunks.push(chunk);
      if (size > MAX_BYTES) refuse(413, `A form must be smaller than ${MAX_BYTES} bytes.`);
    });
    request.on('end', () => resolve(new URLSearchParams(Buffer.concat(chunks).toString('utf8'))));
    request.on('error', () => reject(new BadForm(400, 'The form broke off: send it again.')));
  });
}

/** True if a browser says that another site sent this request. */
function isCrossSite(request) {
  const site = request.headers['sec-fetch-site'];
  if (site) return site !== 'same-origin' && site !== 'none';
  const origin = request.headers.origin;
  return origin !== undefined && origin.replace(/^https?:\/\//, '') !== request.headers.host;
}

module.exports = { readForm, isCrossSite, BadForm };
