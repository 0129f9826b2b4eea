// The controller's contract without a controller: for console development and fast UI checks.
//   node tests/browser/mock/server.mjs [port]
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { consoleRequire } from '../lib/deps.mjs'
import { CATALOGUE, misfit } from './diagnoses.mjs'
import { serveRfb } from './rfb.mjs'
import { course, sites, World, runbook } from './world.mjs'

const { WebSocketServer } = consoleRequire('ws')
const DIST = fileURLToPath(new URL('../../../controller/console/dist', import.meta.url))
const PASSWORD = 'mat-khau-thu-nghiem'
// The controller's own policy, so that a console that breaks it breaks here too.
const CSP =
  "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'; font-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' }
const PIXEL = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPj/HwAEAQH/7yMK/gAAAABJRU5ErkJggg==', 'base64')

class Refusal extends Error {
  constructor(status, code, detail, extra = {}) {
    super(detail)
    Object.assign(this, { status, body: { type: 'about:blank', title: 'Refused', status, code, detail, ...extra } })
  }
}

const page = (items) => ({ items, total: items.length, next: null })
const fold = (text) => text.normalize('NFD').replace(/\p{M}/gu, '').replace(/[đĐ]/g, 'd').toLowerCase()

export async function startMock(port = 0) {
  const world = new World()
  const cookies = new Map()
  const failures = new Map()
  const fault = { path: null, status: 0 }
  const desktopState = { keys: [] }

  const routes = [
    ['POST', '/login', ({ body, res }) => {
      const user = world.users.find((u) => u.username === body.username)
      const left = 5 - (failures.get(body.username) ?? 0) - 1
      if (failures.get(body.username) >= 5) {
        throw new Refusal(423, 'A-102', 'Locked.', { until: new Date(Date.now() + 600_000).toISOString() })
      }
      if (!user || body.password !== PASSWORD) {
        failures.set(body.username, (failures.get(body.username) ?? 0) + 1)
        throw new Refusal(401, 'A-101', 'Wrong user name or password.', { remaining: left })
      }
      failures.delete(body.username)
      const token = randomBytes(12).toString('hex')
      cookies.set(token, { user, csrf: randomBytes(8).toString('hex') })
      res.setHeader('set-cookie', `tram_session=${token}; Path=/; HttpOnly; SameSite=Strict`)
      return { user: me(user), csrf: cookies.get(token).csrf }
    }],
    ['GET', '/support', () => ({ phone: '024 1022' })],
    ['POST', '/logout', ({ token }) => void cookies.delete(token)],
    ['GET', '/me', ({ who }) => ({ user: me(who.user), csrf: who.csrf, version: '0.1.0-mock' })],
    ['PATCH', '/me', () => undefined],
    ['GET', '/overview', () => {
      const by_state = {}
      for (const d of world.desktops) by_state[d.state] = (by_state[d.state] ?? 0) + 1
      return {
        hosts: { total: 1, up: 1 }, desktops: { total: world.desktops.length, by_state }, pools: { total: world.pools.length },
        endpoints: { total: 2, online: 1, silent: 1 },
        sessions: { active: world.sessions.filter((s) => s.state === 'active').length, disconnected: 0 },
      }
    }],
    ['GET', '/hosts', () => page([world.host, ...world.newHosts])],
    ['POST', '/hosts', ({ body }) => {
      if ([world.host, ...world.newHosts].some((h) => h.name === body.name)) {
        throw new Refusal(409, 'H-409', 'a host has this name already; choose another')
      }
      return [201, world.addHost(body)]
    }],
    ['POST', '/hosts/nodes', ({ body }) => {
      if (body.names.some((n) => !/^[\w.:-]+$/.test(n))) {
        const errors = [{ at: 'names', code: 'H-203', message: "a node is reached by a host's name or an address" }]
        throw new Refusal(422, 'H-203', 'no', { errors })
      }
      return { settings: 'listen = "0.0.0.0:8445"\n', certificate: 'KEY\n', authority: 'CA\n', not_after: '2028-11-25T00:00:00Z' }
    }],
    ['PATCH', '/hosts/:id', ({ id, body }) => {
      const host = found([world.host, ...world.newHosts], id)
      if (body.accel_policy) host.accel_policy = body.accel_policy
      if (body.enabled !== undefined) Object.assign(host, { state: body.enabled ? 'up' : 'disabled', draining: false })
      if (body.drain) Object.assign(host, { state: 'disabled', draining: true })
      return host
    }],
    ['DELETE', '/hosts/:id', ({ id }) => {
      world.newHosts = world.newHosts.filter((h) => h.id !== id)
      return [204, null]
    }],
    ['GET', '/gateways', () => page(world.gateways)],
    ['GET', '/updates', () => page(world.updates)],
    ['GET', '/updates/:id', ({ id }) => world.updateDetail(id)],
    ['POST', '/updates/:id/pause', ({ id }) => world.wishUpdate(id, 'paused')],
    ['POST', '/updates/:id/resume', ({ id }) => world.wishUpdate(id, 'running')],
    ['POST', '/updates/:id/abort', ({ id }) => world.wishUpdate(id, 'aborted')],
    ['POST', '/gateways/:id/drain', ({ id }) => world.drain(id, true)],
    ['POST', '/gateways/:id/undrain', ({ id }) => world.drain(id, false)],
    ['GET', '/images', () => page([world.image, world.badImage])],
    ['GET', '/pools', () => page(world.pools.map((p) => world.poolRow(p)))],
    ['POST', '/pools', ({ body }) => {
      if (world.pools.some((p) => p.name === body.name)) {
        throw new Refusal(409, 'P-103', 'a pool of this name exists already; choose another name')
      }
      if (!world.siteRef(body.site_code)) {
        const errors = [{ at: 'site_code', code: 'P-108', message: 'there is no such site today' }]
        throw new Refusal(422, 'P-100', 'the pool was not made', { errors })
      }
      return [202, world.poolRow(world.addPool(body))]
    }],
    ['GET', '/pools/:id', ({ id }) => world.poolRow(found(world.pools, id))],
    ['PATCH', '/pools/:id', ({ id, body }) => {
      const pool = Object.assign(found(world.pools, id), body)
      world.fill(pool)
      return [202, world.poolRow(pool)]
    }],
    ['PUT', '/pools/:id/policy', ({ id, body }) => {
      if (body.idle_minutes > 527_040) {
        const errors = [{ at: 'idle_minutes', code: 'P-112', message: 'give minutes, 1 to 527040' }]
        throw new Refusal(422, 'P-113', 'the policy was not set', { errors })
      }
      return world.poolRow(Object.assign(found(world.pools, id), { policy: body }))
    }],
    ['DELETE', '/pools/:id', ({ id }) => {
      Object.assign(found(world.pools, id), { desired: 'absent', size: 0 })
      world.fill(found(world.pools, id))
      return [202, null]
    }],
    ['GET', '/desktops', () => page(world.desktops)],
    ['GET', '/desktops/:id', ({ id }) => found(world.desktops, id)],
    ['GET', '/desktops/:id/screenshot', ({ res }) => {
      res.setHeader('content-type', 'image/png')
      return PIXEL
    }],
    ...[['start', 'starting', 'running'], ['stop', 'stopping', 'stopped'], ['reset', 'booting', 'running'], ['rebuild', 'rebuilding', 'running']].map(
      ([verb, state, desired]) => ['POST', `/desktops/:id/${verb}`, ({ id }) => {
        const desktop = Object.assign(found(world.desktops, id), { state, desired })
        world.emit('desktop', [desktop])
        return [202, desktop]
      }],
    ),
    ['GET', '/sites', ({ url }) => {
      const q = fold(url.searchParams.get('q') ?? '')
      const level = url.searchParams.get('level')
      if (level === 'district') return page([])
      return page(sites.filter((s) => fold(`${s.name} ${s.district.name}`).includes(q)))
    }],
    ['PUT', '/sites/:id/line', ({ id, body }) => {
      const site = sites.find((s) => s.code === id)
      if (body.down_kbit !== null && (body.down_kbit < 64 || body.down_kbit > 10_000_000)) {
        const errors = [{ at: 'down_kbit', code: 'S-213', message: 'give kbit/s, 64 to 10000000' }]
        throw new Refusal(422, 'S-213', 'give kbit/s, 64 to 10000000', { errors })
      }
      Object.assign(site.line, { metered: body.metered ?? site.line.metered, down_kbit: body.down_kbit, budget_kbit: body.down_kbit && body.down_kbit * 0.85 })
      return site
    }],
    ['POST', '/sites/import', ({ text, url }) => {
      const lines = text.trim().split('\n')
      if (!lines[0].includes('commune_code')) {
        throw new Refusal(422, 'S-201', 'The file has 2 faults; nothing was imported.', {
          errors: [
            { at: '1', code: 'S-202', message: 'the column commune_code is missing' },
            { at: '3', code: 'S-203', message: 'the district 999 is not known' },
          ],
        })
      }
      const created = url.searchParams.get('dry_run') ? lines.length - 1 : lines.length - 1
      return { created, updated: 0, unchanged: sites.length, closed: 0 }
    }],
    ['GET', '/users', () => page(world.users)],
    ['POST', '/users', ({ body }) => {
      const user = { ...body, id: randomUUID(), site: world.siteRef(body.site_code), disabled: false, locked_until: null, password: undefined }
      world.users.push(user)
      return [201, user]
    }],
    ['PATCH', '/users/:id', ({ id, body }) => Object.assign(found(world.users, id), { disabled: body.disabled ?? false })],
    ['GET', '/endpoints', () => page(world.endpoints)],
    ['GET', '/endpoints/:id', ({ id }) => found(world.endpoints, id)],
    ['POST', '/endpoints/:id/new-machine', ({ id, body }) => {
      const endpoint = found(world.endpoints, id)
      world.decided = body
      Object.assign(endpoint, { quarantined_at: null, copies: undefined })
      return { new_id: world.endpoints[0].id, endpoint }
    }],
    ['POST', '/endpoints/:id/same-machine', ({ id, body }) => {
      world.decided = body
      return Object.assign(found(world.endpoints, id), { quarantined_at: null, copies: undefined })
    }],
    ['PUT', '/endpoints/:id/metered', ({ id, body }) =>
      Object.assign(found(world.endpoints, id), { metered_here: body.metered, metered: body.metered ?? false })],
    ['POST', '/endpoints/:id/revoke', ({ id }) => Object.assign(found(world.endpoints, id), { state: 'revoked' })],
    ['GET', '/endpoints/:id/health', ({ id }) => world.health(found(world.endpoints, id))],
    ['GET', '/endpoints/:id/samples', ({ id }) => page(world.samples(found(world.endpoints, id)))],
    ['GET', '/diagnosis-catalogue', () => page(CATALOGUE)],
    ['GET', '/diagnoses', ({ url }) => {
      const [of, waiting] = [url.searchParams.get('endpoint'), url.searchParams.get('waiting') === 'true']
      const rows = world.diagnoses.rows.filter((d) => (!of || d.endpoint.id === of) && (!waiting || d.state === 'asked'))
      return page(rows.map(({ steps, ...row }) => row))
    }],
    ['POST', '/endpoints/:id/diagnoses', ({ id, who, body }) => {
      const fault = misfit(body.arguments)
      if (fault) throw new Refusal(422, 'Q-101', 'an argument does not fit', { errors: [fault] })
      if (body.action === 'bandwidth' && world.diagnoses.busy) throw new Refusal(409, 'Q-110', 'desktops open at this office: 1')
      return world.diagnoses.ask(found(world.endpoints, id), who.user, body)
    }],
    ['GET', '/diagnoses/:id', ({ id, who }) => world.diagnoses.detail(found(world.diagnoses.rows, id), who.user)],
    ['POST', '/diagnoses/:id/approve', ({ id, who }) => {
      const row = found(world.diagnoses.rows, id)
      row.approved_by = who.user.username
      world.diagnoses.run(row)
      return row
    }],
    ['POST', '/diagnoses/:id/deny', ({ id }) => world.diagnoses.end(found(world.diagnoses.rows, id), 'denied')],
    ['POST', '/diagnoses/:id/cancel', ({ id, who }) =>
      world.diagnoses.end(found(world.diagnoses.rows, id), 'cancelled', { ended_by: who.user.username })],
    ['GET', '/notify-rules', () => page(world.notifyRules)],
    ['POST', '/notify-rules', ({ body }) => {
      if (!body.target.includes('@') && body.channel === 'email') {
        throw new Refusal(422, 'N-200', 'The rule has a fault.', { errors: [{ at: 'target', code: 'N-202', message: 'no address' }] })
      }
      const rule = { ...body, id: randomUUID() }
      world.notifyRules.push(rule)
      return [201, rule]
    }],
    ['POST', '/notify-rules/:id/test', ({ id }) => {
      const created_at = new Date().toISOString()
      world.notifyLog.unshift({ id: randomUUID(), rule: id, incident: null, occasion: 'test', created_at, due_at: null, attempts: 1, sent_at: created_at, error: null })
      return [202, world.notifyLog[0].id]
    }],
    ['GET', '/notify-log', () => page(world.notifyLog)],
    ['GET', '/incidents', () => page(world.incidents.map(({ sites, events, ...row }) => row))],
    ['GET', '/incidents/by-site', () => page(world.incidents.filter((i) => i.open && i.site).map((i) => ({ site: i.site.code, severity: i.severity, incidents: [i.id] })))],
    ['GET', '/incidents/:id', ({ id }) => found(world.incidents, id)],
    ['POST', '/incidents/:id/acknowledge', ({ id, who }) => {
      const incident = found(world.incidents, id)
      if (incident.acknowledged_by) throw new Refusal(409, 'I-102', 'Somebody looks after it.')
      return world.happened(incident, 'acknowledged', who.user.username, {}, { acknowledged_by: who.user.username })
    }],
    ['POST', '/incidents/:id/notes', ({ id, who, body }) => {
      world.happened(found(world.incidents, id), 'note', who.user.username, { text: body.text })
      return undefined
    }],
    ['POST', '/incidents/:id/hand-over', ({ id, who, body }) => {
      const answer_by = new Date(Date.now() + body.answer_minutes * 60_000).toISOString()
      return world.happened(found(world.incidents, id), 'handed', who.user.username, { to: body.party, text: body.text }, { party: body.party, handed_by: who.user.username, answer_by })
    }],
    ['GET', '/calls', ({ url }) => page(world.calls.filter((c) => url.searchParams.get('over') !== 'false' || !c.over_at))],
    ['GET', '/calls/find', ({ url }) => {
      const code = url.searchParams.get('code').replace(/\D/g, '')
      if (code.length !== 6) throw new Refusal(422, 'T-201', 'give the six digits that are read out')
      const computer = world.endpoints.find((e) => e.state === 'silent')
      const expected = code === '111222' ? [{ endpoint: computer.id, endpoint_name: computer.name, site: computer.site, heard: false }] : []
      return { calls: world.calls.filter((c) => c.code === code), expected }
    }],
    ['POST', '/calls', ({ body, who }) => {
      const computer = found(world.endpoints, body.endpoint)
      const call = {
        ...world.calls[0], id: randomUUID(), code: body.code, state: 'taken', endpoint: computer.id, endpoint_name: computer.name, arrived_at: null, made_at: null,
        taken_by: who.user.username, snapshot: null, events: [{ at: new Date().toISOString(), kind: 'expected', actor: who.user.username, detail: {} }],
      }
      world.calls.unshift(call)
      world.hint('call', call)
      return [201, call]
    }],
    ['GET', '/calls/:id', ({ id }) => ({ ...found(world.calls, id), incidents: world.incidents })],
    ['POST', '/calls/:id/step', ({ id, who, body }) => {
      const state = { take: 'taken', hand_over: 'handed_over', solve: 'solved', close: 'closed' }[body.do]
      const more = body.do === 'take' ? { taken_by: who.user.username } : body.do === 'hand_over' ? { party: body.party } : { over_at: new Date().toISOString() }
      return world.happened(found(world.calls, id), state, who.user.username, { text: body.text ?? '' }, { state, ...more })
    }],
    ['PUT', '/calls/:id/incident', ({ id, who, body }) => world.happened(found(world.calls, id), body.incident ? 'attached' : 'detached', who.user.username, {}, { incident: body.incident ?? null })],
    ['POST', '/calls/:id/notes', ({ id, who, body }) => {
      world.happened(found(world.calls, id), 'note', who.user.username, { text: body.text })
      return undefined
    }],
    ['GET', '/site-facts', () => page(world.facts)],
    ['PUT', '/site-facts/:id', ({ id, body }) => {
      world.facts = [...world.facts.filter((f) => f.site !== id), { site: id, ...body }]
      return body
    }],
    ['GET', '/calendar', () => page(world.days)],
    ['PUT', '/calendar', ({ body }) => page((world.days = body))],
    ['GET', '/probes', () => page(world.services)],
    ['POST', '/probes', ({ body }) => {
      if (world.services.some((s) => s.name === body.name)) throw new Refusal(409, 'E-217', 'the name is taken')
      const service = { id: randomUUID(), port: 0, path: null, expect: null, every_s: 300, budget_ms: 5000, ...body }
      world.services.push(service)
      return service
    }],
    ['DELETE', '/probes/:id', ({ id }) => {
      world.services = world.services.filter((s) => s.id !== id)
      return undefined
    }],
    ['GET', '/time-travel', ({ url }) => world.then(url.searchParams.get('at') ?? new Date().toISOString())],
    ['GET', '/sites/:id/sla', ({ url }) => world.sla(url.searchParams.get('month'))],
    ['GET', '/runbooks', () => ({ items: [{ ...runbook, file: null, key: null, used: 4, fixed: 3 }], refused: [] })],
    ['GET', '/runbook-runs', ({ url }) => page(world.runs.filter((r) => r.of === (url.searchParams.get('incident') ?? url.searchParams.get('call'))))],
    ['POST', '/runbook-runs', ({ body, who }) => {
      const run = {
        id: randomUUID(), of: body.incident ?? body.call, runbook, state: 'running', turn: 'power', failed: [], answers: [], started_by: who.user.username,
        started_at: new Date().toISOString(), over_at: null,
      }
      world.runs.unshift(run)
      return [201, run]
    }],
    ['POST', '/runbook-runs/:id/answers', ({ id, body, who }) => {
      const run = found(world.runs, id)
      if (run.turn !== body.step) throw new Refusal(409, 'Q-101', "another question's turn has come")
      run.answers.push({ ...body, actor: who.user.username, at: new Date().toISOString() })
      run.turn = run.answers.length < 2 ? 'colour' : null
      if (!run.turn) run.state = 'answered'
      return run
    }],
    ['POST', '/runbook-runs/:id/leave', ({ id }) => Object.assign(found(world.runs, id), { state: 'left', turn: null })],
    ['GET', '/enrolments', ({ url }) => {
      const decided = url.searchParams.get('decided') === 'true'
      return page(world.enrolments.filter((e) => (e.state !== 'pending') === decided).map((e) => ({ ...e, beside: undefined })))
    }],
    ['GET', '/enrolments/:id', ({ id }) => found(world.enrolments, id)],
    ['POST', '/enrolments/:id/approve', ({ id, body }) => {
      const enrolment = found(world.enrolments, id)
      if (body.code !== enrolment.code) throw new Refusal(422, 'E-206', 'these are not the digits')
      if (enrolment.state !== 'pending') throw new Refusal(409, 'E-413', 'decided already')
      return Object.assign(enrolment, { state: 'approved', decided_by: 'vanhanh', decided_at: new Date().toISOString() })
    }],
    ['POST', '/enrolments/:id/refuse', ({ id, body }) => {
      if (!body.reason) throw new Refusal(422, 'E-205', 'say why')
      return Object.assign(found(world.enrolments, id), { state: 'refused', reason: body.reason, decided_by: 'vanhanh', decided_at: new Date().toISOString() })
    }],
    ['GET', '/endpoint-tokens', () => page(world.tokens)],
    ['POST', '/endpoint-tokens', ({ body }) => {
      const expires_at = new Date(Date.now() + body.ttl_hours * 3_600_000).toISOString()
      world.tokens.push({
        id: randomUUID(), site: world.siteRef(body.site_code), uses_left: body.count, count: body.count, note: body.note,
        approval: body.approval, serials: body.serials,
        created_at: new Date().toISOString(), expires_at,
      })
      const letters = () => Array.from(randomBytes(5), (b) => '0123456789ABCDEFGHJKMNPQRSTVWXYZ'[b % 32]).join('')
      const token = ['tram1', ...Array.from({ length: 8 }, letters)].join('-')
      const qr = Array.from({ length: 37 }, (_, y) => Array.from({ length: 37 }, (_, x) => ((x * 7 + y * 3) % 5 < 2 ? '#' : '.')).join(''))
      const address = 'https://tram.example:8444'
      return { token, site: world.siteRef(body.site_code), address, code: `${address} ${token}`, qr, expires_at }
    }],
    ['POST', '/connect', ({ who, url, body }) => {
      if (world.elsewhere && !body.take_over) throw new Refusal(409, 'S-106', 'Open elsewhere.', { elsewhere: world.elsewhere })
      world.elsewhere = null
      const session = world.connect(who.user.username)
      if (!session) throw new Refusal(507, 'S-101', 'No desktop is free.')
      return { session: world.sessionRow(session), ticket: ['starting', 'waiting'].includes(session.state) ? null : mint(session, url) }
    }],
    ['GET', '/sessions', () => page(world.sessions.map((s) => world.sessionRow(s)))],
    ['GET', '/sessions/:id', ({ id }) => world.sessionRow(found(world.sessions, id))],
    ['GET', '/sessions/:id/course', () => course()],
    ['POST', '/sessions/:id/ticket', ({ id, url }) => {
      const session = found(world.sessions, id)
      if (session.state === 'starting' || session.state === 'ended') throw new Refusal(409, 'S-104', 'Not ready.')
      return mint(session, url)
    }],
    ['POST', '/sessions/:id/present', ({ id }) => {
      const session = Object.assign(found(world.sessions, id), { closing: null })
      world.emit('session', [world.sessionRow(session)])
      return undefined
    }],
    ['DELETE', '/sessions/:id', ({ id, who, url }) => {
      const session = found(world.sessions, id)
      const own = session.user.username === who.user.username
      Object.assign(session, { state: 'ended', end_reason: own ? 'user' : 'staff', end_note: url.searchParams.get('reason') })
      world.connections.get(id)?.close(4000, 'G-400')
      world.emit('session', [world.sessionRow(session)])
      return [202, null]
    }],
    ['GET', '/sessions/:id/assists', ({ id }) => page(world.assists.of(id))],
    ['POST', '/sessions/:id/assists', ({ id, who, body }) => {
      if (found(world.sessions, id).state !== 'active') throw new Refusal(409, 'S-110', 'Nobody works in it.')
      if (world.assists.live(id)) throw new Refusal(409, 'S-111', 'Somebody assists already.')
      return world.assists.ask(id, who.user, body.reason)
    }],
    ['POST', '/sessions/:id/assists/answer', ({ id, body }) => {
      const assist = world.assists.live(id)
      if (assist?.id !== body.assist) throw new Refusal(409, 'S-112', 'Not asked any more.')
      return world.assists.answer(assist, body.question, body.allow)
    }],
    ['POST', '/sessions/:id/assists/control', ({ id }) => world.assists.askControl(world.assists.live(id))],
    ['POST', '/sessions/:id/assists/ticket', ({ id, url }) => {
      const assist = world.assists.live(id)
      if (assist?.state !== 'allowed') throw new Refusal(409, 'S-113', 'Not allowed.')
      const ticket = `vat1_${randomBytes(32).toString('base64url')}`
      world.assists.tickets.set(hash(ticket), assist.id)
      return { ticket, url: `ws://${url.host}/gateway/v1/assist`, expires_in: 30 }
    }],
    ['DELETE', '/sessions/:id/assists', ({ id, who }) => {
      const assist = world.assists.live(id)
      if (assist) world.assists.end(assist, who.user.role === 'officer' ? 'officer' : 'supporter')
      return undefined
    }],
    ['GET', '/audit', () => page(world.audits)],
  ].map(([method, path, handler]) => {
    const pattern = new RegExp(`^/api/v1${path.replace(':id', '(?<id>[\\w-]+)')}$`)
    return { method, pattern, handler }
  })

  function mint(session, url) {
    const ticket = `vdt1_${randomBytes(32).toString('base64url')}`
    world.tickets.set(hash(ticket), session.id)
    return { ticket, url: `ws://${url.host}/gateway/v1/vnc`, expires_in: 30 }
  }

  async function answer(req, res) {
    const url = new URL(req.url, `http://${req.headers.host}`)
    res.setHeader('content-security-policy', CSP)
    if (url.pathname === '/healthz') return res.end('ok')
    if (url.pathname === '/') return res.writeHead(307, { location: '/console/' }).end()
    if (url.pathname.startsWith('/console')) return file(url.pathname, res)
    if (fault.path && url.pathname.startsWith(fault.path)) {
      return problem(res, new Refusal(fault.status, 'X-500', ''))
    }
    const token = /tram_session=(\w+)/.exec(req.headers.cookie ?? '')?.[1]
    const who = cookies.get(token)
    if (!who && !['/api/v1/login', '/api/v1/support'].includes(url.pathname)) return problem(res, new Refusal(401, 'A-100', 'Sign in first.'))
    if (url.pathname === '/api/v1/events') return events(req, res)
    const route = routes.find((r) => r.method === req.method && r.pattern.test(url.pathname))
    if (!route) return problem(res, new Refusal(404, 'H-404', 'No such page.'))
    if (req.method !== 'GET' && who && req.headers['x-tram-csrf'] !== who.csrf) {
      return problem(res, new Refusal(403, 'A-105', 'The request did not come from this console.'))
    }
    const text = await read(req)
    try {
      const json = (req.headers['content-type'] ?? '').includes('json')
      const result = route.handler({
        req, res, url, who, token, text, body: json && text ? JSON.parse(text) : {}, id: route.pattern.exec(url.pathname).groups?.id,
      })
      const [status, value] = Array.isArray(result) ? result : [result === undefined ? 204 : 200, result]
      if (Buffer.isBuffer(value)) return res.end(value)
      res.writeHead(status, { 'content-type': 'application/json' })
      res.end(status === 204 ? undefined : JSON.stringify(value))
    } catch (error) {
      problem(res, error instanceof Refusal ? error : new Refusal(500, 'X-500', String(error)))
    }
  }

  function events(req, res) {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' })
    res.write(': hello\n\n')
    const listener = (change) => res.write(`event: change\ndata: ${JSON.stringify(change)}\n\n`)
    world.listeners.add(listener)
    req.on('close', () => world.listeners.delete(listener))
  }

  const server = createServer((req, res) => void answer(req, res))
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: () => 'binary' })
  server.on('upgrade', (req, socket, head) => {
    const ticket = (req.headers['sec-websocket-protocol'] ?? '').split(',').map((p) => p.trim())[1] ?? ''
    if (req.url === '/gateway/v1/assist') {
      const assist = world.assists.tickets.get(hash(ticket))
      world.assists.tickets.delete(hash(ticket))
      if (!assist) return void socket.end('HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n')
      sockets.handleUpgrade(req, socket, head, (ws) => {
        world.assists.begin(assist, ws)
        serveRfb(ws, desktopState)
      })
      return
    }
    const sessionId = world.tickets.get(hash(ticket))
    world.tickets.delete(hash(ticket))
    const session = world.sessions.find((s) => s.id === sessionId)
    if (!session || session.state === 'ended') {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\nconnection: close\r\n\r\n{"code":"G-101"}')
      return
    }
    sockets.handleUpgrade(req, socket, head, (ws) => {
      world.connections.get(sessionId)?.close(4004, 'G-404')
      world.connections.set(sessionId, ws)
      session.state = 'active'
      ws.on('close', () => {
        if (world.connections.get(sessionId) !== ws) return
        world.connections.delete(sessionId)
        if (session.state === 'active') session.state = 'disconnected'
        session.resumes += 1
      })
      serveRfb(ws, desktopState)
    })
  })
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    world,
    desktopState,
    password: PASSWORD,
    /** Every call below `path` fails until called with null. */
    failOn: (path, status = 500) => Object.assign(fault, { path, status }),
    /** Cuts every live desktop connection the way a broken line does. */
    cutLines: () => [...world.connections.values()].forEach((ws) => ws.terminate()),
    forgetCookies: () => cookies.clear(),
    close: async () => {
      world.close()
      sockets.clients.forEach((ws) => ws.terminate())
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function me(user) {
  return { id: user.id, username: user.username, display_name: user.display_name, role: user.role, site: user.site, language: null }
}

function hash(ticket) {
  return createHash('sha256').update(ticket).digest('hex')
}

function found(rows, id) {
  const row = rows.find((r) => r.id === id)
  if (!row) throw new Refusal(404, 'H-404', 'There is no such thing.')
  return row
}

function problem(res, refusal) {
  res.writeHead(refusal.status, { 'content-type': 'application/problem+json' })
  res.end(JSON.stringify(refusal.body))
}

async function read(req) {
  const chunks = []
  for await (const chunk of req) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}

function file(path, res) {
  const wanted = join(DIST, normalize(path.replace(/^\/console\/?/, '/')))
  const exists = wanted.startsWith(DIST) && existsSync(wanted) && statSync(wanted).isFile()
  const real = exists ? wanted : join(DIST, 'index.html')
  res.setHeader('content-type', `${TYPES[extname(real)] ?? 'application/octet-stream'}; charset=utf-8`)
  createReadStream(real).pipe(res)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock(Number(process.argv[2] ?? 8099))
  console.log(`${mock.url}/console/  accounts vanhanh, hotro, canbo  password ${PASSWORD}`)
}
