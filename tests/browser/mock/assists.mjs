// Assists behind the mock API: one live one a session, asked for, answered, watched, ended.
import { randomUUID } from 'node:crypto'

const later = (seconds) => new Date(Date.now() + seconds * 1000).toISOString()

export class Assists {
  constructor(world) {
    this.world = world
    this.rows = []
    this.sockets = new Map()
    this.tickets = new Map()
    /** What the pool's policy says. */
    this.consent = 'ask'
  }

  of(session) {
    return this.rows.filter((a) => a.session === session)
  }

  live(session) {
    return this.of(session).find((a) => a.state !== 'ended')
  }

  changed(session) {
    const row = this.world.sessions.find((s) => s.id === session)
    if (row) this.world.emit('session', [this.world.sessionRow(row)])
  }

  ask(session, user, reason) {
    const asks = this.consent === 'ask'
    const assist = {
      id: randomUUID(), session, supporter: { username: user.username, display_name: user.display_name }, reason,
      consent: this.consent, state: asks ? 'asked' : 'allowed', control: 'none', asked_at: later(0), due_at: later(asks ? 30 : 60),
      control_due_at: null, began_at: null, ended_at: null, end_reason: null, ended_by: null,
    }
    this.rows.unshift(assist)
    this.changed(session)
    return assist
  }

  answer(assist, question, allow) {
    if (question === 'control') Object.assign(assist, { control: allow ? 'granted' : 'refused', control_due_at: null })
    else if (allow) Object.assign(assist, { state: 'allowed', due_at: later(60) })
    else return this.end(assist, 'refused')
    this.changed(assist.session)
    return assist
  }

  askControl(assist) {
    Object.assign(assist, { control: 'asked', control_due_at: later(30) })
    this.changed(assist.session)
    return assist
  }

  begin(id, socket) {
    const assist = this.rows.find((a) => a.id === id)
    Object.assign(assist, { state: 'active', began_at: later(0), due_at: later(3600) })
    this.sockets.set(id, socket)
    socket.on('close', () => this.end(assist, 'left'))
    this.changed(assist.session)
  }

  end(assist, end_reason) {
    if (assist.state === 'ended') return assist
    Object.assign(assist, { state: 'ended', end_reason, ended_at: later(0), control_due_at: null })
    this.sockets.get(assist.id)?.close(4000, '4000')
    this.changed(assist.session)
    return assist
  }
}
