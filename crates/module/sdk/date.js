// `Date` tells the time of the call, in UTC: neither the wall clock nor the server's time zone may be seen, else the same
// call would do different things on replay.
const ZONELESS = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?$/;
const inUtc = text => (typeof text === "string" && ZONELESS.test(text) ? `${text}Z` : text);

function DateInCall(...parts) {
  if (new.target === undefined) return new DateInCall().toString();
  const [first] = parts;
  let date;
  if (parts.length === 0) date = new HostDate(native.now());
  else if (parts.length > 1) date = new HostDate(HostDate.UTC(...parts));
  else date = new HostDate(inUtc(first));
  if (new.target !== DateInCall) HostObject.setPrototypeOf(date, new.target.prototype);
  return date;
}
HostObject.defineProperty(DateInCall, "name", { value: "Date" });
HostObject.defineProperty(DateInCall, "length", { value: 7 });
hidden(DateInCall, "now", () => native.now());
hidden(DateInCall, "UTC", HostDate.UTC);
hidden(DateInCall, "parse", text => HostDate.parse(inUtc(`${text}`)));
defineProperty(DateInCall, "prototype", { value: HostDate.prototype, writable: false });
hidden(HostDate.prototype, "constructor", DateInCall);
for (const name of getOwnPropertyNames(HostDate.prototype)) {
  if (name.startsWith("UTC", 3)) hidden(HostDate.prototype, name.slice(0, 3) + name.slice(6), HostDate.prototype[name]);
}
hidden(HostDate.prototype, "getYear", function () { return this.getUTCFullYear() - 1900; });
hidden(HostDate.prototype, "getTimezoneOffset", function () { return this.getTime() * 0; });
const utcParts = date => {
  // "Thu, 01 Jan 1970 00:00:00 GMT"
  const [day, number, month, year, time] = date.toUTCString().replace(",", "").split(" ");
  return { date: `${day} ${month} ${number} ${year}`, time };
};
const isInvalid = date => date.getTime() !== date.getTime();
for (const [names, text] of [
  [["toString"], ({ date, time }) => `${date} ${time} GMT+0000 (UTC)`],
  [["toDateString", "toLocaleDateString"], ({ date }) => date],
  [["toTimeString", "toLocaleTimeString"], ({ time }) => `${time} GMT+0000 (UTC)`],
  [["toLocaleString"], ({ date, time }) => `${date} ${time}`],
]) {
  for (const name of names) {
    hidden(HostDate.prototype, name, function () { return isInvalid(this) ? "Invalid Date" : text(utcParts(this)); });
  }
}
hidden(globalThis, "Date", DateInCall);
