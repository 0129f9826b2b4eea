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
  action('bandwidth', 'active'),
  action('reread_proxy', 'active'),
  action('smart_test', 'active', [argument('disk', 'disk')]),
  action('usb_cycle', 'active', [argument('usb_port', 'usb_port')]),
  action('reset_viewer', 'disruptive'),
  action('reboot', 'disruptive', [], { right: 'operator' }),
  action('capture', 'disruptive', [argument('seconds', 'number', { min: 1, max: 60, usual: 20 })], { two_persons: true }),
]

const step = (n, name, args, state, text_code, facts, text = '') => ({
  step: n, action: name, arguments: args, state, text_code, facts, took_ms: 420, text, cut: false,
})

/** What an action finds at this computer. */
const FINDS = {
  bandwidth: () => ['ok', 'done', { down_mbit_s: '41.2', up_mbit_s: '9.8', down_kb: '4000', up_kb: '4000' }],
  reread_proxy: () => ['ok', 'done', { proxy: 'none' }],
  smart_test: ({ disk }) => (disk === 'sda' ? ['ok', 'begun', { disk, minutes: '2' }] : ['crit', 'not_that', { disk }]),
  usb_cycle: ({ usb_port: port }) => (port === '1-1.4' ? ['ok', 'done', { port, device: 'Viettel-CA ePass2003' }] : ['crit', 'not_that', { port }]),
  reset_viewer: () => ['ok', 'done', {}],
}
const ARGUMENTS = {
  disk: [/^[a-z]+[0-9a-z]*$/, "give the kernel's name of a disk, such as sda"],
  usb_port: [/^\d+-\d+(\.\d+)*$/, "give the kernel's name of a USB port, such as 1-1.4"],
  to: [/^[A-Za-z0-9:]/, 'give a host name or an address'],
}

/** The first argument that does not fit. */
export function misfit(given) {
  for (const [at, value] of Object.entries(given)) {
    const [fits, message] = ARGUMENTS[at] ?? []
    if (fits && !fits.test(value)) return { at, code: 'Q-101', message }
  }
  return undefined
}

export class Diagnoses {
  constructor(world) {
    this.world = world
    this.rows = []
    /** Somebody of the office works at a desktop: its line is not filled. */
    this.busy = false
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
    if (spec.two_persons) return row
    if (spec.class === 'disruptive') this.askOfficer(row)
    else this.run(row)
    return row
  }

  /** The officer has to say yes at the computer; whoever tests says it for them. */
  askOfficer(row) {
    row.state = 'asking'
    this.changed(row)
  }

  /** What the officer says, or nobody. */
  officer(said) {
    const row = this.rows.find((d) => d.state === 'asking')
    if (said === 'yes') this.run(row)
    else this.end(row, 'refused', { code: said === 'no' ? 'declined' : 'nobody_there' })
  }

  run(row) {
    row.state = 'running'
    this.changed(row)
    const finds = FINDS[row.name]?.(row.arguments)
    if (finds) {
      setTimeout(() => {
        row.steps.push(step(0, row.name, row.arguments, ...finds))
        this.end(row, 'done')
      }, 600)
      return
    }
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
