// To the server and back. What is on its way is kept in the browser until the server says that it has it, and is sent
// again under the same token; the server keeps each token once.

const token = document.querySelector("meta[name=form-token]").content;

export class Refused extends Error {
  constructor(sentence, status, said) { super(sentence); this.status = status; this.said = said; }
}

export async function post(url, body = {}) {
  const reply = await fetch(url, { method: "POST", headers: { "content-type": "application/json", "x-form-token": token }, body: JSON.stringify(body) });
  const said = await reply.json().catch(() => ({}));
  if (reply.status === 401) location.href = `/login?next=${encodeURIComponent(location.pathname)}`;
  if (!reply.ok) throw new Refused(said.error ?? "The server did not accept this.", reply.status, said);
  return said;
}

export const freshToken = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Outbox {
  // person: whose; what waits for another person on the same machine is not touched. listen: (waiting, trouble) => {}
  constructor(person, listen) {
    this.key = `outbox:${person}`;
    this.listen = listen;
    this.waiting = JSON.parse(localStorage.getItem(this.key) ?? "[]");
    this.handlers = new Map();
    this.running = null;
  }

  // The reply, once the server has it; throws Refused where it will never have it.
  send(url, body) {
    const letter = { url, body: { ...body, client_token: freshToken() } };
    this.waiting.push(letter);
    this.store();
    return new Promise((resolve, reject) => { this.handlers.set(letter.body.client_token, { resolve, reject }); this.flush(); });
  }

  // Resolves when nothing waits.
  flush() {
    this.running ??= this.work().finally(() => { this.running = null; });
    return this.running;
  }

  async work() {
    let delay = 300;
    while (this.waiting.length) {
      const { url, body } = this.waiting[0];
      try {
        const said = await post(url, body);
        this.finish(body.client_token, "resolve", said);
        delay = 300;
      } catch (error) {
        if (error instanceof Refused && error.status === 403 && this.renew()) return;
        if (error instanceof Refused && error.status < 500 && error.status !== 401 && error.status !== 429) this.finish(body.client_token, "reject", error);
        else {
          this.listen(this.waiting.length, true);
          await pause(delay);
          delay = Math.min(delay * 1.7, 5000);
        }
      }
    }
  }

  // After another login in another tab the page's token is stale: load it anew, what waits is kept. Not twice in a row.
  renew() {
    const last = Number(sessionStorage.getItem("renewed") ?? 0);
    if (Date.now() - last < 10_000) return false;
    sessionStorage.setItem("renewed", String(Date.now()));
    location.reload();
    return true;
  }

  finish(token, how, value) {
    this.waiting.shift();
    this.store();
    this.handlers.get(token)?.[how](value);
    this.handlers.delete(token);
  }

  store() {
    if (this.waiting.length) localStorage.setItem(this.key, JSON.stringify(this.waiting));
    else localStorage.removeItem(this.key);
    this.listen(this.waiting.length, false);
  }
}
