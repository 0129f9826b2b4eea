import { useQuery, useQueryClient } from '@tanstack/react-query'
import { createContext, type ReactNode, useContext, useEffect, useMemo, useState } from 'react'
import * as calls from '../api/calls'
import { setCsrf, whenSignedOut } from '../api/client'
import { keys } from '../api/keys'
import { Problem } from '../api/problem'
import type { Me } from '../api/types'
import { adoptLanguage } from '../i18n'

interface SignIn {
  me: Me | null | undefined
  error: unknown
  /** The last session ended under the user's hands; the sign-in page says so. */
  expired: boolean
  signIn(username: string, password: string): Promise<void>
  signOut(): Promise<void>
  retry(): void
}

const Context = createContext<SignIn | null>(null)

export function useSignIn(): SignIn {
  const value = useContext(Context)
  if (!value) throw new Error('useSignIn outside SignInProvider')
  return value
}

/** For pages behind the guard, where somebody is signed in for certain. */
export function useMe(): Me {
  const { me } = useSignIn()
  if (!me) throw new Error('useMe before sign-in')
  return me
}

/** The helpdesk's number, as the controller is configured; empty: none is shown. Asked once, while the line is good. */
export function useSupportPhone(): string {
  const query = useQuery({ queryKey: keys.support, queryFn: calls.support, staleTime: Infinity, gcTime: Infinity })
  return query.data?.phone ?? ''
}

export function SignInProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient()
  useSupportPhone()
  const [expired, setExpired] = useState(false)

  const query = useQuery({
    queryKey: keys.me,
    queryFn: async (): Promise<Me | null> => {
      try {
        const me = await calls.me()
        setCsrf(me.csrf)
        adoptLanguage(me.user.language)
        return me
      } catch (error) {
        if (error instanceof Problem && error.status === 401) return null
        throw error
      }
    },
    staleTime: Infinity,
    retry: 1,
  })

  useEffect(() => {
    whenSignedOut(() => {
      if (client.getQueryData(keys.me)) setExpired(true)
      client.setQueryData(keys.me, null)
      client.removeQueries({ predicate: (q) => !['me', 'support'].includes(String(q.queryKey[0])) })
    })
  }, [client])

  const value = useMemo<SignIn>(
    () => ({
      me: query.data,
      error: query.error,
      expired,
      async signIn(username, password) {
        const { csrf } = await calls.login(username, password)
        setCsrf(csrf)
        setExpired(false)
        client.removeQueries({ predicate: (q) => !['me', 'support'].includes(String(q.queryKey[0])) })
        await query.refetch()
      },
      async signOut() {
        // The cookie may be gone already; the person wants to leave either way.
        await calls.logout().catch(() => undefined)
        setExpired(false)
        client.setQueryData(keys.me, null)
        client.removeQueries({ predicate: (q) => !['me', 'support'].includes(String(q.queryKey[0])) })
      },
      retry: () => void query.refetch(),
    }),
    [client, expired, query],
  )
  return <Context.Provider value={value}>{children}</Context.Provider>
}
