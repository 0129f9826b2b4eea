import { describe, expect, it } from 'vitest'
import { applyToList, collect, type Kind, parseChange, type Pending } from './reducer'

interface Row {
  id: string
  state: string
  pool?: string
}

const list = (...items: Row[]) => ({ items, total: items.length })

function pendingOf(...events: string[]): Pending {
  const pending = new Map<Kind, Pending>()
  for (const event of events) {
    const change = parseChange(event)
    if (change) collect(pending, change)
  }
  return pending.get('desktop') ?? { rows: new Map(), gone: new Set() }
}

describe('live rows', () => {
  it('replace in place, append the new and drop the gone', () => {
    const before = list({ id: 'a', state: 'booting', pool: 'p' }, { id: 'b', state: 'running' }, { id: 'c', state: 'running' })
    const pending = pendingOf(
      '{"kind":"desktop","rows":[{"id":"a","state":"running"},{"id":"d","state":"planned"}],"gone":["b"]}',
    )
    const after = applyToList<Row>(before, pending)
    expect(after?.items).toEqual([
      { id: 'a', state: 'running', pool: 'p' },
      { id: 'c', state: 'running' },
      { id: 'd', state: 'planned' },
    ])
    expect(after?.total).toBe(3)
    expect(after?.items[1]).toBe(before.items[2])
  })

  it('keep the newest word on an id within one flush', () => {
    const made = pendingOf(
      '{"kind":"desktop","rows":[{"id":"a","state":"planned"}],"gone":[]}',
      '{"kind":"desktop","rows":[{"id":"a","state":"running"}],"gone":[]}',
    )
    expect(applyToList<Row>(list(), made)?.items).toEqual([{ id: 'a', state: 'running' }])

    const goneThenBack = pendingOf(
      '{"kind":"desktop","rows":[],"gone":["a"]}',
      '{"kind":"desktop","rows":[{"id":"a","state":"planned"}],"gone":[]}',
    )
    expect(applyToList<Row>(list({ id: 'a', state: 'running' }), goneThenBack)?.items).toEqual([{ id: 'a', state: 'planned' }])

    const madeThenGone = pendingOf(
      '{"kind":"desktop","rows":[{"id":"a","state":"planned"}],"gone":[]}',
      '{"kind":"desktop","rows":[],"gone":["a"]}',
    )
    expect(applyToList<Row>(list(), madeThenGone)).toEqual({ items: [], total: 0 })
  })

  it('count rows beyond the fetched page', () => {
    const after = applyToList<Row>({ items: [{ id: 'a', state: 'running' }], total: 9000 }, pendingOf('{"kind":"desktop","gone":["a"]}'))
    expect(after?.total).toBe(8999)
  })

  it('leave a list alone that was never fetched, and ignore noise', () => {
    expect(applyToList<Row>(undefined, pendingOf('{"kind":"desktop","rows":[{"id":"a"}]}'))).toBeUndefined()
    expect(parseChange('not json')).toBeUndefined()
    expect(parseChange('null')).toBeUndefined()
    expect(parseChange('{"rows":[]}')).toBeUndefined()
  })

  it('turn 50 requested desktops into 50 without a fetch', () => {
    let rows: { items: Row[]; total: number } | undefined = list()
    for (let i = 0; i < 50; i += 1) {
      rows = applyToList<Row>(rows, pendingOf(`{"kind":"desktop","rows":[{"id":"d${i}","state":"planned"}],"gone":[]}`))
      rows = applyToList<Row>(rows, pendingOf(`{"kind":"desktop","rows":[{"id":"d${i}","state":"running"}],"gone":[]}`))
    }
    expect(rows?.items.filter((row) => row.state === 'running')).toHaveLength(50)
    expect(rows?.total).toBe(50)
  })
})
