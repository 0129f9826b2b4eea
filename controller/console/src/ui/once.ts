import { useRef, useState } from 'react'

/** One thing at a time: a second click while the first is under way does nothing, and the button shows that it works. */
export function useOnce(): [boolean, (work: () => Promise<unknown>) => Promise<void>] {
  const [busy, setBusy] = useState(false)
  const underWay = useRef(false)
  const once = async (work: () => Promise<unknown>) => {
    if (underWay.current) return
    underWay.current = true
    setBusy(true)
    try {
      await work()
    } finally {
      underWay.current = false
      setBusy(false)
    }
  }
  return [busy, once]
}
