import createClient, { type Middleware } from 'openapi-fetch'
import { Problem } from './problem'
import type { paths } from './schema'
import { learnServerTime } from './serverTime'

let csrf = ''
let onSignedOut: () => void = () => {}

/** Remembers the token that proves a mutating call comes from this console. */
export function setCsrf(token: string): void {
  csrf = token
}

/** Called once for every answer that says the cookie is no longer good. */
export function whenSignedOut(handler: () => void): void {
  onSignedOut = handler
}

const middleware: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET') request.headers.set('x-tram-csrf', csrf)
    return request
  },
  async onResponse({ request, response }) {
    learnServerTime(response.headers.get('date'), Date.now())
    if (response.ok) return undefined
    const problem = await Problem.from(response)
    const path = new URL(request.url).pathname
    if (response.status === 401 && path !== '/api/v1/login' && path !== '/api/v1/me') onSignedOut()
    throw problem
  },
  onError({ error }) {
    return error instanceof Problem || (error as Error)?.name === 'AbortError' ? undefined : Problem.network()
  },
}

// Same origin always: the console is served by the controller it talks to.
export const api = createClient<paths>({ credentials: 'same-origin' })
api.use(middleware)

/** The body of a good answer; bad ones have already been thrown by the middleware. */
export async function body<T>(call: Promise<{ data?: T }>): Promise<T> {
  const { data } = await call
  return data as T
}

/** Sends a CSV as it is; openapi-fetch would serialise it as JSON. */
export async function postText<T>(path: string, text: string | Blob): Promise<T> {
  let response: Response
  try {
    response = await fetch(path, {
      method: 'POST',
      credentials: 'same-origin',
      headers: { 'content-type': 'text/csv; charset=utf-8', 'x-tram-csrf': csrf },
      body: text,
    })
  } catch {
    throw Problem.network()
  }
  if (!response.ok) {
    if (response.status === 401) onSignedOut()
    throw await Problem.from(response)
  }
  return (await response.json()) as T
}
