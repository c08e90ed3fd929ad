'use strict';

// The pages, from data to HTML. No I/O here.

const { html } = require('./html');

const TYPES = ['Quiz', 'Test', 'Exam'];
const REFRESH_S = 2;

/**
 * What stands around every page.
 *
 * @param {{instance?: object|null, refresh?: boolean}} options The GradingService instance that answered; null: none did;
 *   undefined: none was asked.
 */
function layout(title, content, { instance, refresh = false } = {}) {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${refresh && html`<meta http-equiv="refresh" content="${REFRESH_S}">`}
<title>${title} · Portald</title>
<link rel="icon" href="/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/style.css">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><div class="column"><a class="brand" href="/students">Portald</a><span class="tagline">Students and their grades</span></div></header>
<main id="main" class="column">
${content}
</main>
<footer class="column">${answeredBy(instance)}</footer>
</body>
</html>
`.text;
}

function answeredBy(instance) {
  if (instance === undefined) return null;
  if (instance === null) return html`<p>No GradingService instance answered.</p>`;
  return html`<p>GradingService at <code>${instance.url}</code>${instance.id && html`, instance <code>${instance.id}</code>`}</p>`;
}

/** The list of students. */
function studentsPage(students, instance) {
  const rows = students.map((student) => html`
<tr><th scope="row"><a href="/students/${student.ID}">${fullName(student)}</a></th><td class="number">${average(student)}</td><td class="bar">${bar(student.Average)}</td></tr>`);
  return layout('Students', html`
<h1>Students</h1>
<div class="card">
<table class="students">
<thead><tr><th scope="col">Student</th><th scope="col" class="number">Average</th><td class="bar"></td></tr></thead>
<tbody>${rows}
</tbody>
</table>
</div>`, { instance });
}

/**
 * One student: the grades and a form to add one.
 *
 * @param {object} student With Grades.
 * @param {{url: string, id: string}} instance
 * @param {{typed?: object, problem?: {message: string, field: string}}} form What was typed and what is wrong with it.
 */
function studentPage(student, instance, { typed = {}, problem = null } = {}) {
  const last = student.Grades.length - 1;
  const rows = student.Grades.map((grade, i) => html`
<tr${i === last && html` id="newest"`}><th scope="row">${grade.Title}</th><td>${grade.Type}</td><td class="number">${grade.Score}</td></tr>`);
  return layout(`${problem ? 'Error: ' : ''}${fullName(student)}`, html`
<p class="back"><a href="/students">All students</a></p>
<div class="heading"><h1>${fullName(student)}</h1><p class="average">Average <strong>${average(student)}</strong></p></div>
<div class="columns">
<section class="card" aria-labelledby="grades"><h2 id="grades">Grades</h2>
<table class="grades">
<thead><tr><th scope="col">Title</th><th scope="col">Type</th><th scope="col" class="number">Score</th></tr></thead>
<tbody>${rows}
</tbody>
</table>
</section>
<section class="card" aria-labelledby="add"><h2 id="add">Add a grade</h2>
${gradeForm(student.ID, typed, problem, 'Add the grade')}
</section>
</div>`, { instance });
}

// The rules are GradingService's: the form checks nothing itself (novalidate), so there is one set of messages.
function gradeForm(id, typed, problem, label) {
  const general = problem && !['Title', 'Type', 'Score'].includes(problem.field);
  const options = TYPES.map((type) => html`<option${type === typed.Type && html` selected`}>${type}</option>`);
  return html`<form method="post" action="/students/${id}/grades" novalidate>
${general && html`<p class="problem" role="alert">${problem.message}</p>`}
${field('Title', problem, (wrong) => html`<input id="Title" name="Title" value="${typed.Title}" autocomplete="off" required${wrong}>`)}
${field('Type', problem, (wrong) => html`<select id="Type" name="Type"${wrong}>${options}</select>`)}
${field('Score', problem, (wrong) => html`<input id="Score" name="Score" value="${typed.Score}" inputmode="decimal" autocomplete="off" required${wrong}>`, '0 to 100')}
<button>${label}</button>
</form>`;
}

/** A label, the control that `control` makes, and the problem with it, if there is one. */
function field(name, problem, control, hint = '') {
  const bad = problem && problem.field === name;
  const wrong = bad && html` aria-invalid="true" aria-describedby="${name}-problem" autofocus`;
  return html`<div class="field${bad && ' bad'}"><label for="${name}">${name}${hint && html` <span class="hint">${hint}</span>`}</label>
${bad && html`<p class="problem" id="${name}-problem" role="alert">${problem.message}</p>`}
${control(wrong)}</div>`;
}

/** The notice while there is no usable GradingService. It comes again by itself. */
function noticePage(reason, instance) {
  return layout('Not available', html`
<section class="card notice" role="status">
<h1>GradingService is not available right now</h1>
<p>${reason}</p>
<p class="quiet">This page tries again by itself every ${REFRESH_S} seconds.</p>
</section>`, { instance, refresh: true });
}

/** The same for a grade that was just sent: what was typed must not be lost, so this page waits for the button. */
function notSavedPage(id, typed, reason, maybeSaved, instance) {
  const advice = maybeSaved
    ? html`It is not known whether the grade was saved. <a href="/students/${id}">Look at the grades</a> before you send it again.`
    : html`The grade was not saved. It is still here: send it again.`;
  return layout('Not available', html`
<section class="card notice" role="alert">
<h1>GradingService is not available right now</h1>
<p>${reason}</p>
<p>${advice}</p>
</section>
<section class="card narrow" aria-labelledby="add"><h2 id="add">Your grade</h2>
${gradeForm(id, typed, null, 'Send it again')}
</section>`, { instance });
}

/** A page for a request that is wrong: not found, wrong method, too large. */
function problemPage(title, message) {
  return layout(title, html`
<section class="card"><h1>${title}</h1>
<p>${message}</p>
<p><a href="/students">All students</a></p>
</section>`);
}

function fullName(student) {
  return `${student.FirstName} ${student.LastName}`;
}

function average(student) {
  return Number(student.Average).toFixed(1);
}

/** A picture of the average; the number beside it says the same in text. */
function bar(value) {
  const width = Math.max(0, Math.min(100, Number(value) || 0));
  return html`<svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6"/><rect class="value" width="${width}" height="6"/></svg>`;
}

module.exports = { studentsPage, studentPage, noticePage, notSavedPage, problemPage, fullName };
