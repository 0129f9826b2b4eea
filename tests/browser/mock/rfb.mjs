// The smallest RFB 3.8 server noVNC accepts: no security, raw pixels, and a mark drawn for each key.
const W = 640
const H = 400

/** Speaks RFB over a `ws` socket; `state.keys` outlives the connection, like a desktop's screen would. */
export function serveRfb(socket, state) {
  let buffer = Buffer.alloc(0)
  let stage = 'version'
  let waiting = false
  const send = (bytes) => socket.readyState === 1 && socket.send(bytes)

  send(Buffer.from('RFB 003.008\n'))
  socket.on('message', (data) => {
    buffer = Buffer.concat([buffer, data])
    while (step()) {
      // Each step takes one whole message off the buffer.
    }
  })

  const take = (n) => {
    const head = buffer.subarray(0, n)
    buffer = buffer.subarray(n)
    return head
  }

  const frame = () => {
    const pixels = Buffer.alloc(W * H * 4)
    for (let y = 0; y < H; y += 1) {
      for (let x = 0; x < W; x += 1) {
        const at = (y * W + x) * 4
        pixels[at] = (x * 255) / W
        pixels[at + 1] = (y * 255) / H
        pixels[at + 2] = 90
      }
    }
    state.keys.forEach((_, i) => {
      const left = 10 + (i % 40) * 15
      const top = 20 + Math.floor(i / 40) * 20
      for (let y = top; y < top + 12 && y < H; y += 1) pixels.fill(255, (y * W + left) * 4, (y * W + left + 10) * 4)
    })
    const head = Buffer.alloc(16)
    head.writeUInt16BE(1, 2)
    head.writeUInt16BE(W, 8)
    head.writeUInt16BE(H, 10)
    send(Buffer.concat([head, pixels]))
  }

  const step = () => {
    if (stage === 'version' && buffer.length >= 12) {
      take(12)
      send(Buffer.from([1, 1]))
      stage = 'security'
      return true
    }
    if (stage === 'security' && buffer.length >= 1) {
      take(1)
      send(Buffer.alloc(4))
      stage = 'init'
      return true
    }
    if (stage === 'init' && buffer.length >= 1) {
      take(1)
      const name = Buffer.from('mock desktop')
      const init = Buffer.alloc(24)
      init.writeUInt16BE(W, 0)
      init.writeUInt16BE(H, 2)
      init.set([32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0], 4)
      init.writeUInt32BE(name.length, 20)
      send(Buffer.concat([init, name]))
      stage = 'run'
      return true
    }
    if (stage !== 'run' || buffer.length < 1) return false
    const sizes = { 0: 20, 3: 10, 4: 8, 5: 6 }
    const kind = buffer[0]
    let size = sizes[kind]
    if (kind === 2) size = buffer.length >= 4 ? 4 + 4 * buffer.readUInt16BE(2) : Infinity
    if (kind === 6) size = buffer.length >= 8 ? 8 + Math.abs(buffer.readInt32BE(4)) : Infinity
    if (size === undefined) throw new Error(`RFB message ${kind} is not known to the mock`)
    if (buffer.length < size) return false
    const message = take(size)
    if (kind === 3) {
      if (message[1] === 0) frame()
      else waiting = true
    }
    if (kind === 4 && message[1] === 1) {
      state.keys.push(message.readUInt32BE(4))
      if (waiting) {
        waiting = false
        frame()
      }
    }
    return true
  }
}
