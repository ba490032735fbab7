// Answers states one after the other, the numbers first; a newer state ends the work on an older one.
import { FRONTIER_KLS, family, frontierPoint, limits, mismatchRow, numbers, referenceDecoded, withRollouts }
  from "./answers.js";

/** Serve a port: {id, state} comes in, {id, part, value} goes out, and {id, part: "done"} at last. */
export function serve(port) {
  let newest = 0;
  const pause = () => new Promise((resolve) => setTimeout(resolve, 0));
  port.onmessage = async ({ data: { id, state } }) => {
    newest = id;
    for (const [part, task] of tasks(state)) {
      await pause();
      if (newest !== id) return;
      let value;
      try {
        value = task();
      } catch (error) {
        value = { failed: String(error) };
      }
      port.postMessage({ id, part, value });
    }
    port.postMessage({ id, part: "done" });
  };
}

function* tasks(state) {
  yield ["numbers", () => ({ ...numbers(state), reference: referenceDecoded(state) })];
  yield ["limits", () => limits(state)];
  if (state.k > 0) yield ["rollouts", () => withRollouts(state)];
  const series = ["limit", "identity", "log", "exponential"];
  if (state.agreement < 1) series.push("optimal");
  for (const name of series) {
    for (const kl of FRONTIER_KLS) {
      yield ["frontier", () => ({ name, kl, point: frontierPoint(state, name, kl) })];
    }
  }
  for (const value of family(state).values) {
    yield ["mismatch", () => ({ value, row: mismatchRow(state, value) })];
  }
}
