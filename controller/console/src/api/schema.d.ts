/**
 * Client types of the controller's HTTP API, in the shape openapi-typescript writes.
 * `npm run gen:api` replaces this file from controller/openapi/v1.json.
 */
type Json<T> = { headers: { [name: string]: unknown }; content: { 'application/json': T } }
type Nothing = { headers: { [name: string]: unknown }; content?: never }
type Get<T, Q = never, P = never> = {
  parameters: { query?: Q; header?: never; path: P; cookie?: never }
  requestBody?: never
  responses: { 200: Json<T> }
}
type List<T, Q = never> = {
  parameters: { query?: Q; header?: never; path?: never; cookie?: never }
  requestBody?: never
  responses: { 200: Json<T> }
}
type Send<B, T, P = never, Q = never> = {
  parameters: { query?: Q; header?: never; path: P; cookie?: never }
  requestBody: { content: { 'application/json': B } }
  responses: { 200: Json<T> }
}
type Post<B, T> = {
  parameters: { query?: never; header?: never; path?: never; cookie?: never }
  requestBody: { content: { 'application/json': B } }
  responses: { 200: Json<T> }
}
type Do<P = never, Q = never> = {
  parameters: { query?: Q; header?: never; path: P; cookie?: never }
  requestBody?: never
  responses: { 202: Nothing }
}
type Id = { id: string }
type Page = { limit?: number; cursor?: string }
type S = components['schemas']

export interface paths {
  '/api/v1/login': { post: Post<S['LoginRequest'], S['LoginResponse']> }
  '/api/v1/logout': { post: { parameters: { path?: never }; requestBody?: never; responses: { 204: Nothing } } }
  '/api/v1/me': { get: List<S['Me']>; patch: { parameters: { path?: never }; requestBody: { content: { 'application/json': { language?: 'vi' | 'en' } } }; responses: { 204: Nothing } } }
  '/api/v1/overview': { get: List<S['Overview']> }
  '/api/v1/hosts': { get: List<S['HostList']> }
  '/api/v1/hosts/{id}': { get: Get<S['Host'], never, Id>; patch: Send<S['HostPatch'], S['Host'], Id> }
  '/api/v1/images': { get: List<S['ImageList']> }
  '/api/v1/pools': { get: List<S['PoolList']>; post: Post<S['NewPool'], S['Pool']> }
  '/api/v1/pools/{id}': {
    get: Get<S['Pool'], never, Id>
    patch: Send<S['PoolPatch'], S['Pool'], Id>
    delete: Do<Id, { force?: boolean }>
  }
  '/api/v1/desktops': {
    get: List<S['DesktopList'], Page & { pool_id?: string; state?: string; q?: string; host_id?: string }>
  }
  '/api/v1/desktops/{id}': { get: Get<S['Desktop'], never, Id> }
  '/api/v1/desktops/{id}/start': { post: Do<Id> }
  '/api/v1/desktops/{id}/stop': { post: Send<S['DesktopStop'], S['Desktop'], Id> }
  '/api/v1/desktops/{id}/reset': { post: Do<Id> }
  '/api/v1/desktops/{id}/rebuild': { post: Do<Id> }
  '/api/v1/sites': {
    get: List<S['SiteList'], { q?: string; parent?: string; level?: string; at?: string; limit?: number }>
  }
  '/api/v1/users': { get: List<S['UserList'], Page>; post: Post<S['UserCreate'], S['User']> }
  '/api/v1/users/{id}': { patch: Send<S['UserPatch'], S['User'], Id> }
  '/api/v1/endpoints': { get: List<S['EndpointList'], Page & { site?: string; state?: string; q?: string }> }
  '/api/v1/endpoints/{id}': { get: Get<S['Endpoint'], never, Id> }
  '/api/v1/endpoints/{id}/revoke': { post: Send<S['RevokeRequest'], S['Endpoint'], Id> }
  '/api/v1/endpoint-tokens': {
    get: List<S['TokenList'], Page>
    post: Post<S['TokenCreate'], S['TokenCreated']>
  }
  '/api/v1/connect': { post: { parameters: { path?: never }; requestBody?: never; responses: { 200: Json<S['ConnectResponse']> } } }
  '/api/v1/sessions': { get: List<S['SessionList'], Page> }
  '/api/v1/sessions/{id}': { get: Get<S['Session'], never, Id>; delete: Do<Id> }
  '/api/v1/sessions/{id}/ticket': {
    post: {
      parameters: { path: Id }
      requestBody?: never
      responses: { 200: Json<S['Ticket']> }
    }
  }
  '/api/v1/audit': { get: List<S['AuditList'], { limit?: number; cursor?: number; q?: string }> }
}

export interface components {
  schemas: {
    SiteRef: { code: string; name: string; district?: string | null }
    Ref: { id: string; name: string }
    CodedText: { code: string; text: string }
    LoginRequest: { username: string; password: string }
    UserMe: {
      id: string
      username: string
      display_name: string
      role: 'operator' | 'support' | 'officer'
      site?: S['SiteRef'] | null
      language?: string | null
    }
    LoginResponse: { user: S['UserMe']; csrf: string }
    Me: { user: S['UserMe']; csrf: string; version: string; }
    Overview: {
      hosts: { total: number; up: number }
      desktops: { total: number; by_state: { [state: string]: number } }
      pools: { total: number }
      endpoints: { total: number; online: number; silent: number }
      sessions: { active: number; disconnected: number }
    }
    Host: {
      id: string
      name: string
      uri: string
      state: 'connecting' | 'up' | 'down' | 'disabled'
      state_reason?: string | null
      hostname?: string | null
      cpus?: number | null
      memory_mib?: number | null
      memory_free_mib?: number | null
      disk_mib?: number | null
      disk_free_mib?: number | null
      libvirt_version?: string | null
      hypervisor_version?: string | null
      accel?: string | null
      accel_reason?: string | null
      accel_code?: string | null
      accel_policy: 'auto' | 'kvm' | 'tcg'
      desktops: { total: number; running: number }
      unknown_desktops: number
      seen_at?: string | null
    }
    HostPatch: { enabled?: boolean | null; accel_policy?: 'auto' | 'kvm' | 'tcg' | null }
    HostList: { items: S['Host'][]; total: number; next?: string | null }
    Image: {
      id: string
      name: string
      version: string
      file: string
      format?: string | null
      virtual_size_bytes?: number | null
      file_size_bytes?: number | null
      sha256?: string | null
      state: 'checking' | 'ready' | 'failed' | 'retired'
      error?: string | null
      created_at: string
      pools: number
    }
    ImageList: { items: S['Image'][]; total: number; next?: string | null }
    Pool: {
      id: string
      name: string
      site: S['SiteRef']
      image: { id: string; name: string; version: string }
      size: number
      vcpus: number
      memory_mib: number
      disk_gib?: number | null
      persistent: boolean
      desired: 'present' | 'absent'
      ready: number
      running: number
      failed: number
      counts: { [state: string]: number }
      generation: number
      created_at: string
      problem?: S['CodedText'] | null
    }
    NewPool: {
      name: string
      site_code: string
      image_id: string
      size: number
      vcpus?: number
      memory_mib?: number
      disk_gib?: number
      persistent?: boolean
      start?: boolean
    }
    PoolPatch: { size?: number; name?: string }
    PoolList: { items: S['Pool'][]; total: number; next?: string | null }
    DesktopState:
      | 'planned'
      | 'creating'
      | 'defined'
      | 'starting'
      | 'booting'
      | 'running'
      | 'stopping'
      | 'stopped'
      | 'rebuilding'
      | 'failed'
      | 'deleting'
    Desktop: {
      id: string
      name: string
      pool: S['Ref']
      site: S['SiteRef']
      host?: S['Ref'] | null
      state: S['DesktopState']
      desired: 'running' | 'stopped' | 'absent'
      step?: string | null
      step_started_at?: string | null
      progress?: number | null
      estimate_s?: number | null
      last_error?: S['CodedText'] | null
      attempts: number
      next_try_at?: string | null
      assigned_to?: { id: string; username: string } | null
      addresses: string[]
      generation: number
      updated_at: string
    }
    DesktopStop: { force?: boolean }
    DesktopList: { items: S['Desktop'][]; total: number; next?: string | null }
    Site: {
      code: string
      name: string
      short_name?: string | null
      type?: string | null
      level: 'province' | 'district' | 'commune'
      parent_code?: string | null
      district?: { code: string; name: string } | null
      province?: { code: string; name: string } | null
      phase?: string | null
      alt_name?: string | null
      valid_from?: string | null
      valid_to?: string | null
      endpoints?: number
      pools?: number
    }
    SiteList: { items: S['Site'][]; total: number; next?: string | null }
    SiteImport: { created: number; updated: number; unchanged: number; closed: number }
    User: {
      id: string
      username: string
      display_name: string
      role: 'operator' | 'support' | 'officer'
      site?: S['SiteRef'] | null
      disabled: boolean
      locked_until?: string | null
      last_login_at?: string | null
      created_at?: string
    }
    UserCreate: {
      username: string
      display_name: string
      role: string
      site_code?: string | null
      password: string
    }
    UserPatch: { disabled?: boolean; unlock?: boolean; password?: string; display_name?: string }
    UserList: { items: S['User'][]; total: number; next?: string | null }
    Endpoint: {
      id: string
      name: string
      site: S['SiteRef']
      state: 'online' | 'silent' | 'never' | 'revoked'
      verdict: 'ok' | 'warn' | 'crit' | 'unknown'
      verdict_reasons: {
        check: string
        state: string
        text_code: string
        params?: { [name: string]: unknown } | null
      }[]
      last_seen_at?: string | null
      enrolled_at: string
      agent_version?: string | null
      os?: string | null
      cert_not_after?: string | null
      hardware?: {
        vendor?: string | null
        model?: string | null
        serial?: string | null
        cpu_model?: string | null
        cpus?: number | null
        memory_mib?: number | null
        disks?: { name: string; model?: string | null; size_gib?: number | null }[]
      } | null
      vitals?: {
        cpu_percent?: number | null
        memory_used_mib?: number | null
        memory_total_mib?: number | null
        load1?: number | null
        temperatures?: { label: string; celsius: number }[]
        uptime_s?: number | null
      } | null
      network?: {
        interfaces?: {
          name: string
          mac?: string | null
          addresses?: string[]
          up?: boolean
          speed_mbps?: number | null
        }[]
        gateway_rtt_ms?: number | null
        dns_ms?: number | null
        controller_rtt_ms?: number | null
        skew_ms?: number | null
      } | null
      history?: { at: string; kind: string; detail?: string | null }[]
    }
    EndpointList: { items: S['Endpoint'][]; total: number; next?: string | null }
    RevokeRequest: { reason: string }
    TokenCreate: { site_code: string; count?: number; ttl_hours?: number; note?: string | null }
    TokenCreated: { token: string; expires_at: string }
    Token: {
      id: string
      site: S['SiteRef']
      uses_left: number
      count: number
      note?: string | null
      created_at: string
      expires_at: string
    }
    TokenList: { items: S['Token'][]; total: number; next?: string | null }
    Session: {
      id: string
      state: 'starting' | 'ready' | 'active' | 'disconnected' | 'ended'
      user?: { id: string; username: string } | null
      site_code: string
      desktop?: { id?: string | null; name: string; state: S['DesktopState'] } | null
      step?: { code: string; started_at: string; estimate_s?: number | null } | null
      created_at: string
      last_active_at?: string | null
      ended_at?: string | null
      end_reason?: string | null
      resumes: number
    }
    SessionList: { items: S['Session'][]; total: number; next?: string | null }
    Ticket: { ticket: string; url: string; expires_in: number }
    ConnectResponse: { session: S['Session']; ticket?: S['Ticket'] | null }
    AuditRow: {
      at: string
      actor: string
      role?: string | null
      action: string
      target?: string | null
      detail?: unknown
      ip?: string | null
      result: string
    }
    AuditList: { items: S['AuditRow'][]; total: number; next?: string | null }
  }
}
