// Who was led here from a link to a second of a call is led on to that second: browsers do not tell the server of it.

const next = document.querySelector("input[name=next]");
if (location.hash && !next.value.includes("#")) next.value += location.hash;
