// Remote diagnosis behind the mock API: a small catalogue, and computers that take a moment to answer.
import { randomUUID } from 'node:crypto'

const now = () => new Date().toISOString()
const action = (name, kind = 'silent', args = [], more = {}) => ({
  name, bundle: false, class: kind, deadline_s: 15, right: 'support', two_persons: false, arguments: args, ...more,
})
const argument = (name, kind, more = {}) => ({ name, kind, min: null, max: null, usual: null, words: [], ...more })

export const CATALOGUE = [
  action('line', 'silent', [], { bundle: true }),
  action('printer', 'silent', [], { bundle: true }),
  action('ping', 'silent', [argument('to', 'target'), argument('count', 'number', { min: 1, max: 20, usual: 5 })]),
  action('journal', 'silent', [argument('unit', 'word', { words: ['cups', 'pcscd'] }), argument('lines', 'number', { min: 1, max: 2000, usual: 200 })]),
  action('resume_queue', 'active', [argument('printer', 'printer')]),
  action('reboot', 'disruptive', [], { right: 'operator' }),
  action('capture', 'disruptive', [argument('seconds', 'number', { min: 1, max: 60, usual: 20 })], { two_persons: true }),
]

const step = (n, name, args, state, text_code, facts, text = '') => ({
  step: n, action: name, arguments: args, state, text_code, facts, took_ms: 420, text, cut: false,
})

export class Diagnoses {
  constructor(world) {
    this.world = world
    this.rows = []
  }

  ask(endpoint, user, body) {
    const spec = CATALOGUE.find((a) => a.name === body.action)
    const row = {
      id: randomUUID(), endpoint: { id: endpoint.id, name: endpoint.name, site_code: endpoint.site.code }, name: body.action,
      arguments: Object.fromEntries(Object.entries(body.arguments).map(([k, v]) => [k, String(v)])), class: spec.class,
      state: spec.two_persons ? 'asked' : 'running', asked_by: user.username, reason: body.reason ?? '', two_persons: spec.two_persons,
      approved_by: null, asked_at: now(), due_at: now(), began_at: null, ended_at: null, outcome: null, code: null, ended_by: null,
      cancelled: false, progress: null, verdict: null, steps: [],
    }
    this.rows.unshift(row)
    this.changed(row)
    if (!spec.two_persons) this.run(row)
    return row
  }

  run(row) {
    row.state = 'running'
    setTimeout(() => {
      row.progress = '3 0.5 ms'
      row.steps.push(step(0, row.name === 'line' ? 'ping' : row.name, row.name === 'line' ? { to: 'gateway', count: '5' } : row.arguments, 'ok', 'done', { median_ms: '0.51', lost: '0' }, '0.51 ms\n0.52 ms\n'))
      this.changed(row)
    }, 300)
    setTimeout(() => {
      if (row.state === 'ended') return
      if (row.name === 'line') {
        row.steps.push(step(1, 'ping', { to: 'controller', count: '5' }, 'warn', 'lossy', { median_ms: '48.1', lost: '2' }))
        row.verdict = { blame: 'carrier', code: 'line_lossy', evidence: [1] }
      }
      this.end(row, 'done')
    }, 900)
  }

  end(row, outcome, more = {}) {
    Object.assign(row, { state: 'ended', outcome, progress: null, ended_at: now(), ...more })
    this.changed(row)
    return row
  }

  changed(row) {
    const { steps, ...brief } = row
    this.world.emit('diagnosis', [brief])
  }

  detail(row, user) {
    return { ...row, may_agree: row.state === 'asked' && user.username !== row.asked_by }
  }
}
