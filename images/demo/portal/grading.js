'use strict';

// What Portald asks of GradingService. Every call is told which instance to ask.

const { send, parseJson } = require('./outgoing');
const { ProviderMissing } = require('./discovery');

const TIMEOUT_MS = 3000;

/** All students: [{ID, FirstName, LastName, Average}]. */
async function listStudents(instance) {
  const { status, body } = await call(instance, 'GET', '/students');
  if (status !== 200 || !Array.isArray(body)) throw unusable(instance, status);
  return body;
}

/** One student with Grades [{Title, Type, Score}], or null if there is none with this ID. */
async function findStudent(instance, id) {
  const { status, body } = await call(instance, 'GET', `/students/${id}`);
  if (status === 404) return null;
  if (status !== 200 || !body || !Array.isArray(body.Grades)) throw unusable(instance, status);
  return body;
}

/**
 * Add a grade as it was typed: GradingService alone knows what is valid.
 *
 * @param {{Title: string, Type: string, Score: string}} typed
 * @returns {Promise<null | {status: number, message: string, field: string}>} null: added; else why not.
 */
async function addGrade(instance, id, typed) {
  const score = /^-?\d{1,15}(\.\d{1,15})?$/.test(typed.Score.trim()) ? Number(typed.Score) : typed.Score;
  const grade = JSON.stringify({ Title: typed.Title, Type: typed.Type, Score: score });
  const { status, body } = await call(instance, 'POST', `/students/${id}/grades`, grade);
  if (status === 201) return null;
  if (status >= 500 || !body || typeof body.Message !== 'string') throw unusable(instance, status);
  return { status, message: body.Message, field: String(body.Field || '') };
}

async function call(instance, method, path, json) {
  try {
    const answer = await send(method, instance.url + path, { timeoutMs: TIMEOUT_MS, body: json, type: 'application/json' });
    return { status: answer.status, body: parseJson(answer.text) };
  } catch (error) {
    throw new ProviderMissing(`GradingService at ${instance.url} does not answer: ${error.message}.`, { instance, sent: error.sent });
  }
}

function unusable(instance, status) {
  return new ProviderMissing(`GradingService at ${instance.url} gave an answer that cannot be used (${status}).`, { instance, sent: true });
}

module.exports = { listStudents, findStudent, addGrade };
