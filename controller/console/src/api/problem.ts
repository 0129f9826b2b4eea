/** One fault inside a rejected request; `at` is a form field or the line of an imported file. */
export interface Fault {
  at: string
  message: string
  code?: string
}

/** A refused or failed call, as application/problem+json tells it. */
export class Problem extends Error {
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly faults: Fault[]
  /** Extension members, such as `remaining` and `until`. */
  readonly extra: Record<string, unknown>

  constructor(status: number, body: Record<string, unknown>) {
    const title = typeof body.title === 'string' ? body.title : `HTTP ${status}`
    super(title)
    this.name = 'Problem'
    this.status = status
    this.code = typeof body.code === 'string' ? body.code : `H-${status}`
    this.detail = typeof body.detail === 'string' ? body.detail : ''
    this.faults = Array.isArray(body.errors) ? (body.errors as Fault[]) : []
    this.extra = body
  }

  /** The call never reached the controller. */
  static network(): Problem {
    return new Problem(0, { code: 'K-102', title: 'network' })
  }

  static async from(response: Response): Promise<Problem> {
    let body: Record<string, unknown> = {}
    try {
      const parsed: unknown = await response.json()
      if (parsed !== null && typeof parsed === 'object') body = parsed as Record<string, unknown>
    } catch {
      // A proxy in front may answer with HTML; the status is all there is to show.
    }
    return new Problem(response.status, body)
  }
}

export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  return new Problem(0, { code: 'C-900', title: String(error) })
}
