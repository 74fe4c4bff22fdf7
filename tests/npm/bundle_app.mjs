/**
 * Bundles an application's client.
 * usage: node bundle_app.mjs ENTRY OUTPUT node|browser
 */
import { build } from "rolldown";

const [input, file, platform] = process.argv.slice(2);
await build({
  input,
  platform,
  transform: { define: { "process.env.NODE_ENV": '"production"' } },
  output: { file, format: platform === "node" ? "esm" : "iife" },
  logLevel: "warn",
});
