'use strict';

const { setTimeout: sleep } = require('node:timers/promises');
const { send } = require('./outgoing');

const MAX_QUEUE = 256; // messages; at the bound the oldest is dropped and counted
const MAX_LENGTH = 1000; // characters of a message
const TIMEOUT_MS = 2000;
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 5000;

/**
 * Sends messages to the sidecar's POST /log in the background, one after the other, and writes them to stdout.
 * A message is repeated until the sidecar took it; while the sidecar is away the queue holds the newest ones.
 */
class SidecarLog {
  constructor(sidecarUrl) {
    this.url = `${sidecarUrl}/log`;
    this.queue = [];
    this.dropped = 0;
    this.closing = new AbortController();
    this.sender = null; // the promise of the loop, while there is something to send
  }

  /** Queue one message and return at once. */
  send(message) {
    // One message is one line, whatever a name or a title in it holds.
    const line = message.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').slice(0, MAX_LENGTH);
    console.log(line);
    this.queue.push(line);
    if (this.queue.length > MAX_QUEUE) {
      this.queue.shift();
      this.dropped += 1;
    }
    this.sender ??= this.drain();
  }

  /** Send what is queued, for at most limitMs. Does not wait for a sidecar that is away. */
  async close(limitMs) {
    this.closing.abort();
    await Promise.race([this.sender, sleep(limitMs, null, { ref: false })]);
  }

  async drain() {
    while (this.queue.length > 0) {
      await this.deliver(this.queue.shift());
      if (this.dropped > 0) {
        const count = this.dropped;
        this.dropped = 0;
        await this.deliver(`log messages dropped: ${count}, the sidecar was away`);
      }
    }
    this.sender = null;
  }

  async deliver(line) {
    let delayMs = FIRST_DELAY_MS;
    while (!(await this.post(line))) {
      if (this.closing.signal.aborted) return;
      await sleep(delayMs, null, { signal: this.closing.signal }).catch(() => {});
      delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS);
    }
  }

  /** False if the line should be sent again. A line that the sidecar refuses (4xx) never gets better. */
  async post(line) {
    try {
      const { status } = await send('POST', this.url, { timeoutMs: TIMEOUT_MS, body: line, type: 'text/plain; charset=utf-8' });
      if (status >= 500 || status === 429) return false;
      if (status >= 300) console.log(`the sidecar refused a log message: ${status}`);
      return true;
    } catch {
      return false;
    }
  }
}

module.exports = { SidecarLog };
