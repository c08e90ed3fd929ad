'use strict';

const { send, parseJson } = require('./outgoing');
const { isHttpUrl } = require('./settings');

const TIMEOUT_MS = 1000;

/** There is no usable provider; `message` is the reason, `instance` the one that failed, if one was found. */
class ProviderMissing extends Error {
  constructor(reason, { instance = null, sent = false } = {}) {
    super(reason);
    this.instance = instance;
    this.sent = sent; // true: a request may have reached the provider all the same
  }
}

/**
 * Ask the sidecar where a service is. Nothing is kept: each request asks again.
 *
 * @param {string} sidecarUrl
 * @param {string} name
 * @returns {Promise<{url: string, id: string}>} url is without a slash at the end.
 * @throws {ProviderMissing} With the reason that the sidecar gave, or why it gave none.
 */
async function findProvider(sidecarUrl, name) {
  let answer;
  try {
    answer = await send('GET', `${sidecarUrl}/providers/${name}`, { timeoutMs: TIMEOUT_MS });
  } catch (error) {
    throw new ProviderMissing(`The sidecar at ${sidecarUrl} does not answer: ${error.message}.`);
  }
  const found = parseJson(answer.text);
  if (answer.status !== 200) {
    const reason = found && typeof found.Message === 'string' ? found.Message : `The sidecar answered ${answer.status}.`;
    throw new ProviderMissing(reason);
  }
  if (!found || !isHttpUrl(found.URL)) {
    throw new ProviderMissing(`The sidecar gave no usable URL for ${name}.`);
  }
  return { url: found.URL.replace(/\/+$/, ''), id: String(found.InstanceID || '') };
}

module.exports = { findProvider, ProviderMissing };
