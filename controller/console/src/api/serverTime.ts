let offset = 0

/** Learns how far this computer's clock is from the controller's, from any answer's Date header. */
export function learnServerTime(header: string | null, received: number): void {
  const server = header ? Date.parse(header) : Number.NaN
  if (Number.isNaN(server)) return
  // The header has whole seconds and the answer took its time: small differences mean nothing.
  const difference = server - received
  offset = Math.abs(difference) > 2500 ? difference : 0
}

/** Now, by the controller's clock; ages and progress stay right on a PC whose clock is not. */
export function serverNow(): Date {
  return new Date(Date.now() + offset)
}
