'use strict';

// From a request to a page: finds GradingService, asks it, and says clearly when it cannot be asked.

const fs = require('node:fs');
const path = require('node:path');
const { findProvider, ProviderMissing } = require('./discovery');
const { readForm, isCrossSite, BadForm } = require('./form');
const grading = require('./grading');
const pages = require('./pages');

const SERVICE = 'GradingService';
const MAX_ECHO = 1000; // characters of a field that come back in the form
const HEADERS = {
  'Content-Security-Policy':
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
};

/** The request handler of Portald. Its only state is whether GradingService was there last time. */
class Portal {
  constructor(sidecarUrl, log) {
    this.sidecarUrl = sidecarUrl;
    this.log = log;
    this.missing = false;
    this.files = {
      '/style.css': ['text/css; charset=utf-8', fs.readFileSync(path.join(__dirname, 'style.css'))],
      '/favicon.svg': ['image/svg+xml', fs.readFileSync(path.join(__dirname, 'favicon.svg'))],
    };
  }

  /** Answer one request; never throws. */
  async handle(request, response) {
    try {
      await this.route(request, response);
    } catch (error) {
      this.fail(error, response);
    }
  }

  async route(request, response) {
    const [pathname] = request.url.split('?');
    const student = /^\/students\/([1-9]\d{0,8})(\/grades)?$/.exec(pathname);
    const reading = request.method === 'GET' || request.method === 'HEAD';
    if (student && student[2] && request.method === 'POST') return this.addGrade(request, response, student[1]);
    if (!reading) return answerProblem(response, 405, 'Not possible here', 'This address can only be read.', { Allow: 'GET, HEAD' });
    // A reload after a POST that failed ends here.
    if (student && student[2]) return redirect(response, `/students/${student[1]}`);
    if (student) return this.showStudent(response, student[1]);
    if (pathname === '/students') return this.showStudents(response);
    if (pathname === '/') return redirect(response, '/students');
    if (pathname === '/livez') return answer(response, 200, 'ok\n', { 'Content-Type': 'text/plain; charset=utf-8' });
    if (Object.hasOwn(this.files, pathname)) {
      const [type, content] = this.files[pathname];
      return answer(response, 200, content, { 'Content-Type': type, 'Cache-Control': 'no-cache' });
    }
    return answerProblem(response, 404, 'Not found', 'There is no such page.');
  }

  async showStudents(response) {
    const instance = await this.find();
    const students = await grading.listStudents(instance);
    this.noteBack(instance);
    answer(response, 200, pages.studentsPage(students, instance));
  }

  async showStudent(response, id) {
    const instance = await this.find();
    const student = await grading.findStudent(instance, id);
    this.noteBack(instance);
    if (!student) return answerProblem(response, 404, 'Not found', `There is no student ${id}.`);
    this.log.send(`page shown: ${pages.fullName(student)}`);
    return answer(response, 200, pages.studentPage(student, instance));
  }

  async addGrade(request, response, id) {
    if (isCrossSite(request)) return answerProblem(response, 403, 'Refused', 'This form was sent by another site. Use the one on the page.');
    const form = await readForm(request);
    const typed = {};
    for (const name of ['Title', 'Type', 'Score']) typed[name] = (form.get(name) || '').slice(0, MAX_ECHO);
    try {
      const instance = await this.find();
      const problem = await grading.addGrade(instance, id, typed);
      this.noteBack(instance);
      if (!problem) {
        this.log.send(`grade added: student ${id}, ${typed.Title.trim()}, ${typed.Score.trim()}`);
        return redirect(response, `/students/${id}#newest`);
      }
      const student = await grading.findStudent(instance, id);
      if (!student) return answerProblem(response, 404, 'Not found', `There is no student ${id}.`);
      return answer(response, problem.status, pages.studentPage(student, instance, { typed, problem }));
    } catch (error) {
      if (!(error instanceof ProviderMissing)) throw error;
      this.noteMissing(error.message);
      return answer(response, 503, pages.notSavedPage(id, typed, error.message, error.sent, error.instance));
    }
  }

  find() {
    return findProvider(this.sidecarUrl, SERVICE);
  }

  /** Turn what was thrown into an answer. */
  fail(error, response) {
    if (error instanceof ProviderMissing) {
      this.noteMissing(error.message);
      answer(response, 503, pages.noticePage(error.message, error.instance));
    } else if (error instanceof BadForm) {
      answerProblem(response, error.status, 'That did not work', error.message);
    } else {
      console.error(error);
      answerProblem(response, 500, 'That did not work', 'Portald made a mistake. Its log says which.');
    }
  }

  // A page that refreshes itself must not fill the log: only the change is worth a line.
  noteMissing(reason) {
    if (!this.missing) this.log.send(`provider missing: ${SERVICE}: ${reason}`);
    this.missing = true;
  }

  noteBack(instance) {
    if (this.missing) this.log.send(`provider back: ${SERVICE} at ${instance.url}`);
    this.missing = false;
  }
}

function answer(response, status, body, headers = {}) {
  response.writeHead(status, {
    'Content-Type': 'text/html; charset=utf-8',
    'Cache-Control': 'no-store',
    'Content-Length': Buffer.byteLength(body),
    ...HEADERS,
    ...headers,
  });
  response.end(body);
}

function answerProblem(response, status, title, message, headers) {
  answer(response, status, pages.problemPage(title, message), headers);
}

function redirect(response, location) {
  answer(response, 303, '', { Location: location });
}

module.exports = { Portal };
