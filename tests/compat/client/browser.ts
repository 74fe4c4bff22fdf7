/** Runs cases in a browser, where what they see may differ. Its address says where and which: `?url=&database=&case=`. */
import { cases, Place, show, watchSockets } from "./cases";

watchSockets(WebSocket);
const where = new URLSearchParams(location.search);
const place = new Place(where.get("url")!, where.get("database")!, "");
cases[where.get("case")!](place).then(
  result => (document.body.innerText = JSON.stringify(result, show)),
  error => (document.body.innerText = String((error as Error)?.stack ?? error))
);
