// The page of __NAME__: it draws the rows it subscribed to, whenever they change.
// `tine dev` reads this folder again when you save; reload the page to see it.
import { connect } from "/tine/client.js";

const MESSAGES_SHOWN = 50;
const element = id => document.getElementById(id);
const state = text => (element("state").textContent = text);

const db = await connect({
  database: "__NAME__",
  // The same visitor is the same person after a reload.
  token: localStorage.getItem("__NAME__-token"),
  reconnect: true,
  onState: state,
  onChange: draw,
});
localStorage.setItem("__NAME__-token", db.token);
await db.subscribe(["SELECT * FROM message", "SELECT * FROM person"]);
draw();

function draw() {
  const names = new Map([...db.table("person")].map(person => [person.identity, person.name]));
  const messages = [...db.table("message")].sort((a, b) => Number(a.id - b.id)).slice(-MESSAGES_SHOWN);
  element("messages").replaceChildren(
    ...messages.map(({ sender, text }) => {
      const line = document.createElement("li");
      const name = document.createElement("b");
      name.textContent = names.get(sender) ?? sender.slice(0, 8);
      line.append(name, text);
      return line;
    }),
  );
}

/** Calls a reducer with what a form holds. */
function onSubmit(form, reducer) {
  element(form).addEventListener("submit", async event => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.target));
    try {
      await db.call(reducer, fields);
      event.target.reset();
      state("open");
    } catch (error) {
      state(error.message);
    }
  });
}
onSubmit("naming", "set_name");
onSubmit("saying", "say");
