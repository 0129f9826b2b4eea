/** Keys of the query cache: the plural holds a list, the singular with an id one row. */
export const keys = {
  me: ['me'] as const,
  overview: ['overview'] as const,
  hosts: ['hosts'] as const,
  images: ['images'] as const,
  pools: ['pools'] as const,
  desktops: ['desktops'] as const,
  sites: (q: string, level: string) => ['sites', q, level] as const,
  users: ['users'] as const,
  endpoints: ['endpoints'] as const,
  tokens: ['tokens'] as const,
  sessions: ['sessions'] as const,
  audit: (q: string) => ['audit', q] as const,
  pool: (id: string) => ['pool', id] as const,
  desktop: (id: string) => ['desktop', id] as const,
  endpoint: (id: string) => ['endpoint', id] as const,
  session: (id: string) => ['session', id] as const,
}
