// Renews the figures every ten seconds while the page can be seen.

async function renew() {
  if (document.hidden) return;
  const reply = await fetch(`${location.pathname}?part=1`).catch(() => null);
  if (reply?.ok && !reply.redirected) document.getElementById("live").innerHTML = await reply.text();
}

setInterval(renew, 10_000);
