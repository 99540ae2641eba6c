// Runs one wasm module for a parent process: a command a line on stdin, one line of JSON back for each.
//   run NAME REPEAT     -> CPU seconds of this process spent in the export NAME
//   put FILE ADDRESS    -> copies a file's bytes into memory
//   get FILE ADDRESS SIZE -> writes memory to a file
'use strict';
const fs = require('fs');
const readline = require('readline');

const instance = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])), {});
const memory = () => new Uint8Array(instance.exports.memory.buffer);
memory().set(fs.readFileSync(process.argv[3]), 0);

const verbs = {
  run(name, repeat) {
    const start = process.cpuUsage();
    instance.exports[name](Number(repeat));
    const used = process.cpuUsage(start);
    return (used.user + used.system) / 1e6;
  },
  put(file, address) {
    memory().set(fs.readFileSync(file), Number(address));
    return 0;
  },
  get(file, address, size) {
    fs.writeFileSync(file, memory().subarray(Number(address), Number(address) + Number(size)));
    return 0;
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [verb, ...rest] = line.split('\t');
  let answer;
  try {
    answer = { value: verbs[verb](...rest) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
});
