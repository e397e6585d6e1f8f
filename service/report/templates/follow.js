// Fetches the page again and puts its living parts in the place of the old ones, unless somebody reads on in them.
setInterval(async () => {
  if (document.hidden || document.querySelector("details[open]") || getSelection().toString()) return;
  try {
    const answer = await fetch(location.href, {headers: {accept: "text/html"}});
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll("[data-live]");
    document.querySelectorAll("[data-live]").forEach((part, place) => fresh[place] && part.replaceWith(fresh[place]));
  } catch { /* the service is away: the next time */ }
}, 2000);
