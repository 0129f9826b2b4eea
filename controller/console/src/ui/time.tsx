import { useEffect, useState } from 'react'
import { serverNow } from '../api/serverTime'
import { useFormat } from '../i18n/useFormat'

/** The present, renewed every `every` ms while the component is on screen. */
export function useNow(every: number): Date {
  const [now, setNow] = useState(serverNow)
  useEffect(() => {
    const timer = setInterval(() => setNow(serverNow()), every)
    return () => clearInterval(timer)
  }, [every])
  return now
}

/** "3 phút trước", with the exact time on hover and for assistive technology. */
export function Ago({ at, both = false }: { at: string | null | undefined; both?: boolean }) {
  const format = useFormat()
  const now = useNow(5000)
  if (!at) return <>—</>
  const exact = format.dateTime(at, true)
  return (
    <time dateTime={at} title={exact}>
      {format.relative(at, now)}
      {both ? ` (${exact})` : ''}
    </time>
  )
}

export function Exact({ at }: { at: string | null | undefined }) {
  const format = useFormat()
  return at ? <time dateTime={at}>{format.dateTime(at)}</time> : <>—</>
}
