const LOOK_EVERY_MS = 5000
const QUIET_MS = 10_000
const ANSWER_WITHIN_MS = 5000
const DOUBT_EVERY_MS = 250
/** Keys that nothing answered for this long make the officer wonder. */
const DOUBT_MS = 1000

/**
 * Notices a line that died without a word: after a quiet spell it asks the controller for its
 * health, and two missing answers in a row mean the line is gone. Returns the function that stops it.
 *
 * Who types does not wait for that: when nothing has come for a second since a key or click, a sign of
 * life is asked for at once, and `quiet` says so until something comes. A desktop that has nothing to draw
 * is told from a line that stands still by that answer.
 */
export function watchLine(socket: WebSocket, dead: () => void, quiet: (so: boolean) => void = () => undefined): () => void {
  let lastWord = performance.now()
  let lastTouch = -Infinity
  let misses = 0
  let asking = false
  let doubting = false
  let told = false
  const tell = (so: boolean) => {
    if (told === so) return
    told = so
    quiet(so)
  }
  const heard = () => {
    lastWord = performance.now()
    misses = 0
    tell(false)
  }
  const touched = () => {
    // The first of a row of keys counts: the later ones would put the question off.
    if (lastTouch < lastWord) lastTouch = performance.now()
  }
  const look = async () => {
    if (asking || performance.now() - lastWord < QUIET_MS) return
    asking = true
    try {
      await fetch('/healthz', { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) })
      heard()
    } catch {
      misses += 1
      if (misses >= 2) dead()
    } finally {
      asking = false
    }
  }
  const doubt = async () => {
    if (doubting || lastTouch <= lastWord || performance.now() - lastTouch < DOUBT_MS) return
    doubting = true
    try {
      await fetch('/healthz', { cache: 'no-store', signal: AbortSignal.timeout(DOUBT_MS) })
      heard()
    } catch {
      // No answer, or none in time: said, and asked again while nothing comes.
      tell(true)
    } finally {
      doubting = false
    }
  }
  socket.addEventListener('message', heard)
  window.addEventListener('keydown', touched, true)
  window.addEventListener('pointerdown', touched, true)
  const timers = [setInterval(() => void look(), LOOK_EVERY_MS), setInterval(() => void doubt(), DOUBT_EVERY_MS)]
  // The browser knows at once when its own network goes.
  window.addEventListener('offline', dead)
  return () => {
    timers.forEach(clearInterval)
    socket.removeEventListener('message', heard)
    window.removeEventListener('keydown', touched, true)
    window.removeEventListener('pointerdown', touched, true)
    window.removeEventListener('offline', dead)
    tell(false)
  }
}
