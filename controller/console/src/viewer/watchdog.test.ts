import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { watchLine } from './watchdog'

/** A line that stands still answers nothing until its request is given up. */
const silence = (_: string, init: RequestInit) =>
  new Promise<Response>((_resolve, reject) => init.signal?.addEventListener('abort', () => reject(new Error('aborted'))))

describe('a line that stands still', () => {
  const page = new EventTarget()
  const socket = new EventTarget()
  let answer: (url: string, init: RequestInit) => Promise<Response>
  let asked = 0
  let said: boolean[] = []
  let stop = () => undefined as void

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout', 'performance'] })
    vi.stubGlobal('window', page)
    vi.stubGlobal('AbortSignal', {
      timeout: (ms: number) => {
        const control = new AbortController()
        setTimeout(() => control.abort(), ms)
        return control.signal
      },
    })
    vi.stubGlobal('fetch', (url: string, init: RequestInit) => {
      asked += 1
      return answer(url, init)
    })
    ;[asked, said] = [0, []]
    stop = watchLine(socket as WebSocket, () => undefined, (so) => said.push(so))
  })
  afterEach(() => {
    stop()
    vi.useRealTimers()
    vi.unstubAllGlobals()
  })
  const key = async () => {
    await vi.advanceTimersByTimeAsync(10)
    page.dispatchEvent(new Event('keydown'))
  }

  it('is said soon after a key, and taken back by whatever comes', async () => {
    answer = silence
    await key()
    await vi.advanceTimersByTimeAsync(2500)
    expect(said).toEqual([true])
    socket.dispatchEvent(new Event('message'))
    expect(said).toEqual([true, false])
  })

  it('is no desktop that has nothing to draw', async () => {
    answer = () => Promise.resolve(new Response('ok'))
    await key()
    await vi.advanceTimersByTimeAsync(5000)
    expect([asked, said]).toEqual([1, []])
  })

  it('is not asked about while pictures come, or nobody types', async () => {
    answer = silence
    await vi.advanceTimersByTimeAsync(5000)
    await key()
    await vi.advanceTimersByTimeAsync(500)
    socket.dispatchEvent(new Event('message'))
    await vi.advanceTimersByTimeAsync(3000)
    expect([asked, said]).toEqual([0, []])
  })
})
