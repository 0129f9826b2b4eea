import { useQueryClient } from '@tanstack/react-query'
import { createContext, type ReactNode, useContext, useEffect, useState } from 'react'
import { follow, type LinkState } from '../live/events'

const Context = createContext<LinkState>('connecting')

export function useLink(): LinkState {
  return useContext(Context)
}

/** Keeps one event stream open for as long as somebody is signed in. */
export function LiveProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient()
  const [state, setState] = useState<LinkState>('connecting')
  useEffect(() => follow(client, setState), [client])
  return <Context.Provider value={state}>{children}</Context.Provider>
}
