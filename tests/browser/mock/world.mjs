// A small world behind the mock API: rows, a clock that moves desktops along, and a change feed.
import { randomUUID } from 'node:crypto'
import { Assists } from './assists.mjs'
import { Diagnoses } from './diagnoses.mjs'

const now = () => new Date().toISOString()
const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString()

export const sites = [
  ['00001', 'Phường Phúc Xá', '001', 'Quận Ba Đình', 'urban'],
  ['00454', 'Xã Cổ Loa', '017', 'Huyện Đông Anh', '1'],
  ['00613', 'Phường Minh Khai', '021', 'Quận Bắc Từ Liêm', 'urban'],
  ['09832', 'Xã Minh Khai', '274', 'Huyện Hoài Đức', '1'],
  ['10354', 'Thị trấn Vân Đình', '281', 'Huyện Ứng Hòa', '2'],
].map(([code, name, d, district, phase]) => ({
  code, name, short_name: name.replace(/^(Phường|Xã|Thị trấn) /, ''), type: 'xã', level: 'commune', parent_code: d,
  district: { code: d, name: district }, province: { code: '01', name: 'Thành phố Hà Nội' }, phase, alt_name: null,
  valid_from: '2016-01-01', valid_to: null, endpoints: 1, pools: 0,
  line: code === '00454' ? { down_kbit: 8000, budget_kbit: 6800, used_kbit: 2350, sessions: 3, metered: false } : { down_kbit: null, budget_kbit: null, used_kbit: 0, sessions: 0, metered: false },
}))
const ref = (site) => ({ code: site.code, name: site.name, district: site.district.name })
const coLoa = ref(sites[1])

const ORDER = ['planned', 'creating', 'defined', 'starting', 'booting', 'running']

export class World {
  constructor() {
    this.listeners = new Set()
    this.tickMs = 250
    this.speed = 1
    this.tickets = new Map()
    this.connections = new Map()
    this.image = {
      id: randomUUID(), name: 'tram-test', version: '13.1-1', file: 'tram-test-13.1-1.qcow2', format: 'qcow2',
      virtual_size_bytes: 2.5e9, file_size_bytes: 4.1e8, sha256: 'a'.repeat(64), guest: 'linux-bios', state: 'ready', error: null,
      created_at: ago(86_400), pools: 1,
    }
    this.badImage = {
      ...this.image, id: randomUUID(), name: 'la-qcow2', version: '1', state: 'failed', pools: 0,
      error: 'The file carries a backing file; an image must stand alone. (I-105)',
    }
    this.newHosts = []
    this.host = {
      id: randomUUID(), name: 'vh-01', uri: 'qemu:///system', state: 'up', state_reason: '', hostname: 'vh-01.hanoi.example',
      cpus: 16, memory_mib: 65_536, memory_free_mib: 40_960, disk_mib: 950_000, disk_free_mib: 71_000,
      libvirt_version: '11.3.0', hypervisor_version: 'QEMU 10.0.2', accel: 'tcg', accel_code: 'no_cpu_flags',
      accel_reason: 'This host has /dev/kvm, but its processor shows neither vmx nor svm.', accel_policy: 'auto',
      desktops: { total: 2, running: 2 }, unknown_desktops: 0, seen_at: now(),
    }
    const gateway = (name, port, more) => ({
      id: randomUUID(), name, state: 'live', web_url: `https://tram.example:${port}`, agent_url: `https://tram.example:${port + 1}`,
      version: '0.1.0', embedded: false, local_hosts: true, sessions: 12, connections: 13, draining: false, started_at: ago(86_400),
      seen_at: ago(3), silent_s: 3, stopped_at: null, ...more,
    })
    this.gateways = [
      gateway('cong-1', 9443),
      gateway('cong-2', 9453, { state: 'silent', seen_at: ago(70), silent_s: 70, sessions: 0, local_hosts: false }),
      gateway('server@may-chu-8443', 8443, { embedded: true, agent_url: null, sessions: 0, connections: 0 }),
    ]
    const ring = (name, open, total, committed, failed = 0) => ({ ring: name, open, total, committed, busy: open ? 1 : 0, failed, silent: 2 })
    this.updates = [{
      id: randomUUID(), version: '1.4.2', counter: 12, arch: 'x86_64', sha256: 'ab'.repeat(32), size: 5_400_000, state: 'stopped',
      reason: 'too many failures in ring canary', ring: 'canary', ring_since: ago(5400), widest: 'all', hotfix: false, any_time: false,
      signed_by: ['0011223344556677', '8899aabbccddeeff'], expires_at: new Date(Date.now() + 20 * 86_400_000).toISOString(),
      created_by: 'local-admin', created_at: ago(90_000),
      rings: [ring('lab', true, 4, 4), ring('commune', true, 6, 6), ring('canary', true, 150, 120, 4), ring('fifth', false, 460, 0), ring('all', false, 1716, 0)],
    }]
    this.pools = []
    this.desktops = []
    this.sessions = []
    this.assists = new Assists(this)
    this.diagnoses = new Diagnoses(this)
    this.endpoints = [endpoint('may-co-loa-01', 'online', 'ok'), endpoint('may-co-loa-02', 'silent', 'crit')]
    Object.assign(this.endpoints[1], suspected())
    this.notifyRules = []
    this.notifyLog = []
    this.incidents = [incident(randomUUID())]
    this.calls = [supportCall(this.incidents[0])]
    this.runs = []
    this.facts = [{ site: coLoa.code, carrier: 'VNPT', maintenance_until: null, maintenance_reason: '' }]
    this.days = []
    this.services = []
    this.users = [
      user('vanhanh', 'Trần Văn Hành', 'operator', null),
      user('hotro', 'Lê Thị Hỗ Trợ', 'support', null),
      user('canbo', 'Nguyễn Thị Hường', 'officer', coLoa),
    ]
    this.audits = [
      { at: ago(60), actor: 'vanhanh', role: 'operator', action: 'pool.create', target: 'co-loa', detail: { size: 2 }, ip: '127.0.0.1', result: 'ok' },
    ]
    this.tokens = []
    this.enrolments = [enrolment('mot-cua-09', '048213', 'FE-0099'), enrolment('may-la', '771100', 'FE-0042')]
    /** Where the officer's session is open, until it is taken over. */
    this.elsewhere = null
    /** How many stand before a newcomer; with none of them, there is no line. */
    this.ahead = 0
    this.addPool({ name: 'co-loa', site_code: '00454', size: 2, vcpus: 2, memory_mib: 768, persistent: true })
    for (const desktop of this.desktops) desktop.state = 'running'
    this.timer = setInterval(() => this.tick(), this.tickMs)
  }

  updateDetail(id) {
    const release = this.updates.find((r) => r.id === id)
    const failure = (name, stage, code, strikes) => ({ endpoint_id: randomUUID(), endpoint_name: name, site_code: coLoa.code, ring: 'canary', stage, code, detail: '', strikes, at: ago(600) })
    return { ...release, copies: 31, bytes_from_copies: 486_000_000, failures: [failure('may-co-loa-01', 'banned', 'crashed', 3), failure('may-co-loa-02', 'rolled_back', 'no_report', 1)] }
  }

  wishUpdate(id, state) {
    this.hint('update', { id })
    return Object.assign(this.updates.find((r) => r.id === id), { state, reason: null })
  }

  drain(id, draining) {
    const gateway = this.gateways.find((g) => g.id === id)
    Object.assign(gateway, { draining, state: draining ? 'draining' : 'live', sessions: draining ? 0 : gateway.sessions })
    return gateway
  }

  close() {
    clearInterval(this.timer)
  }

  emit(kind, rows, gone = []) {
    for (const listener of this.listeners) listener({ kind, rows, gone })
  }

  /** Of calls and what waits, the stream tells only which one changed. */
  hint(kind, row) {
    this.emit(kind, [{ id: row.id }])
  }

  siteRef(code) {
    const site = sites.find((s) => s.code === code)
    return site ? ref(site) : null
  }

  addHost({ name, uri, accel_policy }) {
    const host = {
      id: randomUUID(), name, uri, state: 'connecting', state_reason: '', accel_policy, desktops: { total: 0, running: 0 },
      unknown_desktops: 0, draining: false,
    }
    this.newHosts.push(host)
    return host
  }

  addPool(body) {
    const pool = {
      id: randomUUID(), name: body.name, site: this.siteRef(body.site_code), image: pick(this.image, 'id', 'name', 'version'),
      size: body.size, vcpus: body.vcpus ?? 2, memory_mib: body.memory_mib ?? 768, disk_gib: null,
      persistent: body.persistent ?? true, desired: 'present', generation: 1, created_at: now(), problem: null, policy: {},
    }
    this.pools.push(pool)
    this.fill(pool)
    return pool
  }

  /** Adds or drops desktop rows until the pool has its size, as the reconciler would. */
  fill(pool) {
    const mine = this.desktops.filter((d) => d.pool.id === pool.id && d.desired !== 'absent')
    for (let i = mine.length; i < pool.size; i += 1) {
      const desktop = {
        id: randomUUID(), name: `${pool.name}-${i + 1}`, pool: pick(pool, 'id', 'name'), site: pool.site,
        host: pick(this.host, 'id', 'name'), state: 'planned', desired: 'running', step: 'place', step_started_at: now(),
        progress: null, estimate_s: 4, last_error: null, attempts: 0, next_try_at: null, assigned_to: null,
        addresses: [], generation: 1, updated_at: now(),
      }
      this.desktops.push(desktop)
    }
    for (const desktop of mine.slice(pool.size)) Object.assign(desktop, { desired: 'absent', state: 'deleting' })
  }

  poolRow(pool) {
    const mine = this.desktops.filter((d) => d.pool.id === pool.id)
    const counts = {}
    for (const d of mine) counts[d.state] = (counts[d.state] ?? 0) + 1
    const count = (...states) => mine.filter((d) => states.includes(d.state)).length
    return { ...pool, counts, ready: count('running', 'stopped'), running: count('running'), failed: count('failed') }
  }

  tick() {
    for (const e of this.endpoints) if (e.state === 'online') e.last_seen_at = now()
    const changed = []
    const gone = []
    for (const d of this.desktops) {
      if (Math.random() > 0.5 * this.speed || (d.state === 'planned' && d.last_error)) continue
      const before = d.state
      const i = ORDER.indexOf(d.state)
      if (d.state === 'deleting') gone.push(d.id)
      else if (d.state === 'stopping') d.state = 'stopped'
      else if (d.state === 'rebuilding') d.state = 'creating'
      else if (d.state === 'stopped' && d.desired === 'running') d.state = 'starting'
      else if (i >= 0 && i < ORDER.length - 1) d.state = ORDER[i + 1]
      if (d.state !== before) {
        d.step_started_at = d.updated_at = now()
        d.addresses = d.state === 'running' ? ['192.168.122.40'] : []
        changed.push(d)
      }
    }
    if (gone.length) {
      this.desktops = this.desktops.filter((d) => !gone.includes(d.id))
      this.pools = this.pools.filter((p) => {
        const done = p.desired === 'absent' && !this.desktops.some((d) => d.pool.id === p.id)
        if (done) this.emit('pool', [], [p.id])
        return !done
      })
    }
    if (changed.length || gone.length) this.emit('desktop', changed, gone)
    for (const s of this.sessions) {
      const desktop = this.desktops.find((d) => d.id === s.desktop.id)
      if (s.state === 'starting' && desktop?.state === 'running') s.state = 'ready'
    }
  }

  /** Something happened to an incident. */
  happened(incident, kind, actor, detail, change = {}) {
    Object.assign(incident, change)
    incident.events.push({ at: now(), kind, actor, detail })
    const { sites, events, ...row } = incident
    if ('code' in incident) this.hint('call', incident)
    else this.emit('incident', [row])
    return incident
  }

  /** How a computer is, and what is plugged in. */
  health(endpoint) {
    const item = (id, kind, name, facts = {}) => ({ id, kind, name, facts })
    const check = (name, state, text_code, params = {}) => ({ check: name, state, text_code, params, since: ago(7200) })
    return {
      at: endpoint.last_seen_at, usual_ms: 21.4, transitions: [], probes: [],
      gauges: { gateway_p50_ms: 0.6, gateway_p95_ms: 1.1, gateway_jitter_ms: 0.2, gateway_loss: 0, controller_p50_ms: 11.4, controller_p95_ms: 24.9, controller_jitter_ms: 3.1, controller_loss: 0 },
      inventory: {
        disks: [item('sda', 'disk', 'Kingston A400', { size_gib: '111', smart: 'passed' })],
        usb: [item('1-1.4', 'token', 'Viettel-CA ePass2003', { vendor_product: '096e:0807' }), item('1-2', 'input', 'Logitech K120', {})],
        printers: [item('mot-cua', 'printer', 'Canon LBP6030', { state: 'idle', jobs: '0' })],
      },
      checks: [check('gateway', 'ok', 'gateway_ok', { gateway: '10.20.1.1', ms: '0.6' }), check('memory', 'ok', 'memory_ok', { free_percent: '79' })],
    }
  }

  /** Its round trips of the last hours. */
  samples() {
    return Array.from({ length: 60 }, (_, n) => ({ at: ago((59 - n) * 120), key: true, verdict: 'ok', gauges: { gateway_ms: 0.6 + (n % 5) / 10, controller_ms: 11 + (n % 9) } }))
  }

  /** A moment of Cổ Loa: the line then, the power now. */
  then(at) {
    const i = this.incidents[0]
    const judged = (cause, evidence) => ({ at: i.opened_at, cause, severity: 'crit', confidence: 'medium', evidence: [evidence], doubts: [] })
    return {
      at, site: coLoa.code,
      incidents: [{ incident: i, then: judged('site_line', { code: 'all_silent', params: { count: '2' } }), now: judged('site_power', { code: 'backlog_power_lost', params: { count: '2', of: '2' } }) }],
      computers: [{ id: this.endpoints[0].id, name: 'may-co-loa-01', then: 'silent', since: i.opened_at, truth: 'off', learnt_at: now(), findings_then: [], findings_now: [{ check: 'gateway', state: 'crit', code: 'gateway_silent', params: {} }] }],
      stops: [{ at: ago(3600), what: 'endpoint.silent' }, { at: i.opened_at, what: 'incident.site_line' }],
    }
  }

  /** A month of Cổ Loa's line. */
  sla(month) {
    const figures = { counted_s: 2_678_400, down_s: 3705, outages: 1, availability: 99.862 }
    const span = { begin: '2026-10-05T01:58:00Z', end: '2026-10-05T02:59:45Z' }
    return {
      installation: randomUUID(), site: coLoa.code, site_name: 'Xã Cổ Loa, Huyện Đông Anh', carrier: 'VNPT', month, from: '2026-09-30T17:00:00Z',
      until: '2026-10-31T17:00:00Z', complete: true, made_at: now(), around_the_clock: figures, office_hours: figures,
      outages: [{ ...span, incident: this.incidents[0].id, cause: 'site_line', first_cause: 'site_line', confidence: 'high', evidence: [{ code: 'all_silent', params: { count: '2' } }], seconds: 3705, counted_s: 3705, office_s: 3705 }],
      excluded: [{ ...span, incident: randomUUID(), cause: 'site_power', why: 'not_the_line' }], works: [{ from: span.begin, until: span.end, reason: 'thay cáp' }],
    }
  }

  /** Somebody in front got a desktop: everybody's page hears of it. */
  moveUp() {
    this.ahead -= 1
    for (const session of this.sessions.filter((s) => s.state === 'waiting')) {
      if (this.ahead === 0) session.state = 'ready'
      this.emit('session', [this.sessionRow(session)])
    }
  }

  sessionRow(session) {
    const desktop = this.desktops.find((d) => d.id === session.desktop.id)
    if (session.state === 'waiting') {
      const queue = { position: this.ahead, length: this.ahead + 2, cause: 'busy', since: session.created_at, estimate_s: this.ahead * 90 }
      return { ...session, desktop: { id: null, name: '', state: null }, step: null, queue }
    }
    return {
      ...session,
      desktop: pick(desktop, 'id', 'name', 'state'),
      assist: this.assists.live(session.id) ?? null,
      step: session.state === 'starting' ? { code: desktop.state, started_at: session.created_at, estimate_s: 6 } : null,
    }
  }

  connect(username) {
    let session = this.sessions.find((s) => s.user.username === username && s.state !== 'ended')
    if (!session) {
      const desktop = this.desktops.find((d) => d.desired === 'running')
      if (!desktop) return null
      const owner = this.users.find((u) => u.username === username)
      desktop.assigned_to = pick(owner, 'id', 'username')
      session = {
        id: randomUUID(), state: desktop.state === 'running' ? 'ready' : 'starting', user: pick(owner, 'id', 'username'),
        site_code: '00454', desktop: pick(desktop, 'id', 'name'), created_at: now(), last_active_at: now(), resumes: 0,
        experience: {
          guilty: 'round_trip',
          segments: [
            { name: 'line', value: 0, limit: 60_000, unit: 'ms', owner: 'capacity' },
            { name: 'ticket', value: 310, limit: 2000, unit: 'ms', owner: 'network' },
            { name: 'display', value: 12, limit: 500, unit: 'ms', owner: 'host' },
            { name: 'picture', value: 620, limit: 1500, unit: 'ms', owner: 'desktop' },
            { name: 'sign_in', value: 4100, limit: 30_000, unit: 'ms', owner: 'desktop' },
            { name: 'round_trip', value: 382, limit: 150, unit: 'ms', owner: 'network' },
            { name: 'loss', value: 13, limit: 20, unit: 'permille', owner: 'network' },
            { name: 'stalls', value: 3800, limit: 3000, unit: 'ms', owner: 'network' },
            { name: 'reply', value: 60, limit: 200, unit: 'ms', owner: 'desktop' },
          ],
        },
      }
      this.sessions.push(session)
      if (this.ahead > 0) session.state = 'waiting'
    }
    if (session.state === 'waiting' && this.ahead === 0) session.state = 'ready'
    return session
  }
}

/** An office all of whose computers are silent. */
function incident(id) {
  return {
    id, cause: 'site_line', first_cause: 'site_line', scope: `site:${coLoa.code}`, site: coLoa, detail: '', severity: 'crit', confidence: 'medium',
    evidence: [{ code: 'all_silent', params: { count: '2' } }], doubts: [{ code: 'power_not_excluded' }], endpoints: [], party: 'carrier', open: true,
    flapping: false, opened_at: ago(300), over_at: null, merged_into: null, acknowledged_by: null, handed_by: null, answer_by: null,
    sites: [coLoa], events: [{ at: ago(300), kind: 'opened', actor: 'system', detail: { cause: 'site_line' } }],
  }
}

/** Two questions for an office that nobody hears. */
export const runbook = {
  id: 'site_dark', version: 1, causes: ['site_line', 'site_power'], checks: [], title: { vi: 'Cả đơn vị mất tín hiệu', en: 'A whole office is silent' },
  result: { vi: 'Các máy có tín hiệu trở lại', en: 'The computers are heard again' },
  escalate: { party: 'carrier', say: { vi: 'Báo nhà mạng màu đèn LOS', en: 'Tell the carrier the colour of LOS' } },
  steps: [
    {
      id: 'power', ask: { vi: 'Đèn trong phòng có sáng không?', en: 'Are the lights lit?' }, expect: { vi: 'Có điện', en: 'There is electricity' }, actions: ['ping'],
      answers: [{ id: 'yes', say: { vi: 'Có', en: 'Yes' } }, { id: 'no', say: { vi: 'Không', en: 'No' } }],
    },
    { id: 'colour', ask: { vi: 'Đèn LOS màu gì?', en: 'Which colour is LOS?' }, answers: [], actions: [] },
  ],
}

/** An officer who read out 482 913. */
function supportCall(of) {
  return {
    id: randomUUID(), code: '482913', state: 'open', endpoint: randomUUID(), endpoint_name: 'may-co-loa-02', site: coLoa, session: null,
    opened_at: ago(120), arrived_at: ago(120), made_at: ago(125), taken_by: null, party: null, answer_by: null, over_at: null, incident: of.id,
    snapshot: {
      verdict: 'crit', cause: 'router', phase: 'lost', shown: ['K-102'], agent_version: '0.1.0',
      findings: [{ check: 'gateway', state: 'crit', code: 'gateway_silent', params: { address: '192.168.1.1' } }, { check: 'memory', state: 'ok', code: 'memory_ok' }],
    },
    events: [{ at: ago(120), kind: 'arrived', actor: 'desk', detail: {} }],
  }
}

/** An hour of a session: a line that gets worse, and a resume. */
export function course() {
  const points = Array.from({ length: 100 }, (_, n) => ({
    at: ago((99 - n) * 30), connection: n < 60 ? 1 : 2,
    rtt_ms: Math.round(90 + (n > 55 ? (n - 55) * 7 : 0) + 25 * Math.abs(Math.sin(n / 3))),
    lost_permille: n % 17 === 5 ? 31 : n % 5, reply_ms: n % 4 === 3 ? null : 60 + (n % 9) * 10,
    pictures_min: Math.round(240 + 200 * Math.sin(n / 7)), kbit: Math.round(900 + 700 * Math.sin(n / 5)), stalls: n % 23 === 7 ? 1 : 0,
  }))
  return { line_site: '00454', line: sites[1].line, points }
}

function pick(from, ...names) {
  return Object.fromEntries(names.map((name) => [name, from[name]]))
}

function user(username, display_name, role, site) {
  return { id: randomUUID(), username, display_name, role, site, disabled: false, locked_until: null, last_login_at: ago(3600), created_at: ago(86_400) }
}

function enrolment(name, code, serial) {
  const same = serial === 'FE-0042'
  return {
    id: randomUUID(), name, code, site: coLoa, state: 'pending', approval: 'serial', note: 'đợt 2', token_by: 'vanhanh', address: '10.20.1.99',
    agent_version: '0.1.0', os: 'Debian GNU/Linux 12', board: `B-${serial}`, disks: [`D-${serial}`], macs: ['00:1b:21:00:00:09'],
    hardware: { vendor: 'FPT Elead', model: 'M500', serial, cpus: 4, memory_mib: 3890, disks: [] },
    expected: ['FE0099', 'FE0100'], asked_at: ago(120), heard_at: ago(3), expires_at: ago(-250_000), decided_at: null, decided_by: null,
    reason: '', collected_at: null,
    beside: [{
      id: randomUUID(), name: 'may-co-loa-01', state: 'online', same_hardware: same, board: 'B-FE-0042', disks: ['D-FE-0042'], macs: ['00:1b:21:00:00:02'],
      hardware: { vendor: 'FPT Elead', model: 'M500', serial: 'FE-0042', cpus: 4, memory_mib: 3890, disks: [] },
    }],
  }
}

function suspected() {
  const computer = (copy, board, address, connects) => ({
    copy, hostname: 'may-co-loa-02', address, agent_version: '0.1.0', board, disks: [`D-${board}`], macs: ['00:1b:21:00:00:02'],
    boot_id: '7d0f3f0e', connects, first_seen_at: ago(900), last_seen_at: ago(20), reports: 3, became: null,
  })
  return {
    quarantined_at: ago(900),
    copies: { signals: ['hardware', 'counter'], computers: [computer('a1', 'FE-0042', '10.20.1.15', 118), computer('b2', 'FE-0077', '10.20.7.9', 61)] },
  }
}

function endpoint(name, state, verdict) {
  const silent = state === 'silent'
  return {
    id: randomUUID(), name, site: coLoa, state, verdict,
    verdict_reasons: silent ? [{ check: 'presence', state: 'crit', text_code: 'silent', params: {} }] : [],
    last_seen_at: ago(silent ? 400 : 4), enrolled_at: ago(864_000), agent_version: '0.1.0', cert_not_after: ago(-2_000_000), key: 'tpm', quarantined_at: null, link: 'websocket',
    metered: false, metered_here: null,
    hardware: {
      vendor: 'FPT Elead', model: 'M500', serial: 'FE-0042', cpu_model: 'Intel Celeron J4125', cpus: 4, memory_mib: 3890,
      disks: [{ name: 'sda', model: 'Kingston A400', size_gib: 111.8 }],
    },
    vitals: { cpu_percent: 7.4, memory_used_mib: 812, memory_total_mib: 3890, load1: 0.21, temperatures: [{ label: 'cpu', celsius: 47.5 }], uptime_s: 273_600 },
    network: {
      interfaces: [{ name: 'enp1s0', mac: '52:54:00:12:34:56', addresses: ['10.20.1.15'], up: true, speed_mbps: 1000 }],
      gateway_rtt_ms: 0.8, dns_ms: 3.2, controller_rtt_ms: 11.4, skew_ms: 14,
    },
    history: [{ at: ago(864_000), kind: 'enrolled' }],
  }
}
