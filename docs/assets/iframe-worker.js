// Browsers refuse workers whose script is a local file. For a site opened from a folder this one runs the script in a
// hidden frame of the page instead; over http the browser's own workers are left alone.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      // Some browsers load the empty page at once, others later, and then anew: what is put there before is lost.
      const empty = new Promise(resolve => this.frame.addEventListener("load", resolve, { once: true }))
      document.documentElement.append(this.frame)
      this.ready = empty.then(() => this.start(url))
    }
    start(url) {
      const inside = this.frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => Promise.all(urls.map(one => this.run(one)))
      return this.run(url)
    }
    run(url) {
      return new Promise((resolve, reject) => {
        const script = this.frame.contentDocument.createElement("script")
        script.src = new URL(url, location.href).href
        script.onload = resolve
        script.onerror = () => reject(new Error(`cannot load ${url}`))
        this.frame.contentDocument.body.append(script)
      })
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
