'use strict';

/** A piece of HTML that is safe to put into a page as it is. */
class Html {
  constructor(text) {
    this.text = text;
  }
}

const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/**
 * Template tag: everything put in is escaped, except what this tag made itself. Lists are joined; null, undefined
 * and false are left out.
 *
 *     html`<p>${'<b>'}</p>`.text === '<p>&lt;b&gt;</p>'
 */
function html(strings, ...values) {
  return new Html(strings.reduce((text, string, i) => text + render(values[i - 1]) + string));
}

function render(value) {
  if (value === null || value === undefined || value === false) return '';
  if (value instanceof Html) return value.text;
  if (Array.isArray(value)) return value.map(render).join('');
  return String(value).replace(/[&<>"']/g, (sign) => ESCAPES[sign]);
}

module.exports = { html };
