'use strict';

/**
 * Read what the environment says: PORT (default 5000, 0 = any free one), HOST (default: all interfaces) and
 * PILLION_URL (the sidecar, default http://127.0.0.1:7071).
 *
 * @returns {{port: number, host: string, sidecarUrl: string}} The URL is without a slash at the end.
 * @throws {Error} Names the variable and what to write there.
 */
function readSettings(env) {
  const port = env.PORT || '5000';
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) {
    throw new Error(`PORT must be a number from 0 to 65535, not "${port}"`);
  }
  const sidecarUrl = env.PILLION_URL || 'http://127.0.0.1:7071';
  if (!isHttpUrl(sidecarUrl)) {
    throw new Error(`PILLION_URL must be like http://127.0.0.1:7071, not "${sidecarUrl}"`);
  }
  return { port: Number(port), host: env.HOST || '', sidecarUrl: sidecarUrl.replace(/\/+$/, '') };
}

/** True for a text that is an absolute http: URL. */
function isHttpUrl(text) {
  try {
    return new URL(text).protocol === 'http:';
  } catch {
    return false;
  }
}

module.exports = { readSettings, isHttpUrl };
