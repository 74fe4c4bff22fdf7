/**
 * Bundles a module as the SpacetimeDB tool chain does it.
 * usage: node bundle.mjs ENTRY OUTPUT
 */
import { build } from "rolldown";

const [input, file] = process.argv.slice(2);
await build({
  input,
  platform: "browser",
  external: /^spacetime:sys.*/,
  resolve: { conditionNames: ["production", "import", "default"] },
  transform: { target: "esnext", define: { "process.env.NODE_ENV": '"production"' } },
  output: { file, format: "esm", sourcemap: "inline", codeSplitting: false },
  logLevel: "warn",
});
