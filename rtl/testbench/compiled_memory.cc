// AxiMemory of memory.py with MemoryTiming, and the loop around a design: many cycles without Python.
// Places of ports (bytes within the design's inputs and outputs) and the codes of rules are written before this text.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

typedef std::vector<uint8_t> Bytes;
struct Read { uint64_t due; uint32_t beats, taken; Bytes data, response; };
struct Write { uint64_t address; uint32_t beats, taken; Bytes data, strobe; };
struct Response { uint64_t due; Write write; };

struct Timing { uint64_t beat, latency, income, cost, cap; };

struct Memory {
  uint8_t *image;
  uint64_t base, size;
  Timing rates;
  void *design;
  void (*settle)(void *, const uint32_t *, uint32_t *);
  void (*edge)(void *);
  uint8_t *in;
  const uint8_t *out;

  std::deque<Read> reads;
  std::deque<Write> writes;
  std::deque<Response> responses;
  uint64_t cycle, budget, read_beats, write_beats, broken_at;
  bool read_turn, read_valid, write_ready, response_valid;
  uint32_t broken;

  uint32_t get(uint32_t place) const { uint32_t x; memcpy(&x, out + place, 4); return x; }
  uint64_t get_address(uint32_t place) const { uint64_t x; memcpy(&x, out + place, 8); return x; }
  void set(uint32_t place, uint32_t value) { memcpy(in + place, &value, 4); }
  bool inside(uint64_t address) const { return address - base < size; }

  void forget() {
    reads.clear(); writes.clear(); responses.clear();
    cycle = 0; budget = rates.cap; read_turn = true; broken = NONE;
    read_valid = write_ready = response_valid = false;
    for (uint32_t place : {RVALID, BVALID, ARREADY, AWREADY, WREADY, RRESP, RLAST, BRESP}) set(place, 0);
    memset(in + RDATA, 0, std::max<uint64_t>(4, rates.beat));
  }

  void drive() {
    set(ARREADY, 1); set(AWREADY, 1); set(WREADY, write_ready);
    set(RVALID, read_valid); set(BVALID, response_valid);
    if (read_valid) {
      const Read &head = reads.front();
      memcpy(in + RDATA, &head.data[head.taken * rates.beat], rates.beat);
      set(RRESP, head.response[head.taken]);
      set(RLAST, head.taken + 1 == head.beats);
    }
    if (response_valid) {
      uint32_t worst = 0;
      const Write &write = responses.front().write;
      for (uint32_t k = 0; k < write.beats; k++) if (!inside(write.address + k * rates.beat)) worst = DECERR;
      set(BRESP, worst);
    }
  }

  uint32_t burst(uint32_t address, uint32_t length, uint32_t beat_size, uint32_t kind, uint64_t &at) {
    uint32_t beats = get(length) + 1;
    at = get_address(address);
    if (1u << get(beat_size) != rates.beat) broken = SIZE;
    else if (get(kind) != 1) broken = BURST;
    else if (at % rates.beat) broken = ALIGNED;
    else if (at / PAGE != (at + beats * rates.beat - 1) / PAGE) broken = CROSSED;
    if (broken) broken_at = at;
    return beats;
  }

  Read fetch(uint64_t address, uint32_t beats) const {
    Read found = {cycle + rates.latency, beats, 0, Bytes(beats * rates.beat), Bytes(beats)};
    for (uint32_t k = 0; k < beats; k++) {
      uint64_t at = address - base + k * rates.beat;
      if (at < size) memcpy(&found.data[k * rates.beat], image + at, std::min(rates.beat, size - at));
      else found.response[k] = DECERR;
    }
    return found;
  }

  void store(const Write &write) {
    for (uint32_t k = 0; k < write.beats; k++) {
      uint64_t at = write.address - base + k * rates.beat;
      if (at >= size) continue;
      for (uint64_t byte = 0; byte < std::min(rates.beat, size - at); byte++)
        if (write.strobe[k * ((rates.beat + 7) / 8) + byte / 8] >> byte % 8 & 1)
          image[at + byte] = write.data[k * rates.beat + byte];
    }
  }

  // What AxiMemory.sample does, then MemoryTiming.step, line by line.
  void sample() {
    bool write_taken = false, read_taken = read_valid && get(RREADY), ended = false;
    uint64_t at;
    Read read = {};
    Write write = {};
    if (get(ARVALID)) { uint32_t beats = burst(ARADDR, ARLEN, ARSIZE, ARBURST, at); read = fetch(at, beats); }
    if (get(AWVALID)) { uint32_t beats = burst(AWADDR, AWLEN, AWSIZE, AWBURST, at); write = {at, beats, 0, {}, {}}; }
    if (write_ready && get(WVALID)) {
      Write &head = writes.front();
      write_taken = true;
      write_beats++;
      head.data.insert(head.data.end(), out + WDATA, out + WDATA + rates.beat);
      head.strobe.insert(head.strobe.end(), out + WSTRB, out + WSTRB + (rates.beat + 7) / 8);
      if ((get(WLAST) != 0) != (head.taken + 1 == head.beats)) { broken = LAST; broken_at = head.address; }
      ended = ++head.taken == head.beats;
    }
    if (response_valid && get(BREADY)) { store(responses.front().write); responses.pop_front(); }

    if (read_taken) {
      read_valid = false;
      read_beats++;
      if (++reads.front().taken == reads.front().beats) reads.pop_front();
    }
    if (write_ready) read_turn = true;
    if (write_taken) budget -= rates.cost;
    if (ended) { responses.push_back({cycle + rates.latency, std::move(writes.front())}); writes.pop_front(); }
    if (read.beats) reads.push_back(std::move(read));
    if (write.beats) writes.push_back(std::move(write));
    cycle++;
    budget = std::min(budget + rates.income, rates.cap);
    bool wants_read = !read_valid && !reads.empty() && reads.front().due <= cycle, wants_write = !writes.empty();
    write_ready = false;
    if (wants_read && budget >= rates.cost && (read_turn || !wants_write || budget >= 2 * rates.cost)) {
      read_valid = true;
      budget -= rates.cost;
      read_turn = false;
    }
    if (wants_write && budget >= rates.cost) write_ready = true;
    response_valid = !responses.empty() && responses.front().due <= cycle;
  }

  bool idle() const { return reads.empty() && writes.empty() && responses.empty(); }
};

extern "C" {
Memory *make(uint8_t *image, uint64_t base, uint64_t size, const Timing *rates, void *design, void *settle, void *edge,
             uint8_t *in, const uint8_t *out) {
  Memory *it = new Memory();
  it->image = image; it->base = base; it->size = size; it->rates = *rates; it->design = design;
  it->settle = (void (*)(void *, const uint32_t *, uint32_t *))settle;
  it->edge = (void (*)(void *))edge;
  it->in = in; it->out = out;
  it->forget();
  return it;
}
void drop(Memory *it) { delete it; }
void forget(Memory *it) { it->forget(); }
void drive(Memory *it) { it->drive(); }
uint32_t sample(Memory *it) { it->sample(); return it->broken; }
// Cycles until `port` is high, a rule is broken or `cycles` have passed; how many there were.
uint64_t run(Memory *it, uint64_t cycles, uint32_t port) {
  uint64_t done = 0;
  bool stop = false;
  while (done < cycles && !stop) {
    it->drive();
    it->settle(it->design, (const uint32_t *)it->in, (uint32_t *)it->out);
    it->sample();
    stop = it->get(port) & 1 || it->broken;
    if (!it->broken) { it->edge(it->design); done++; }
  }
  return done;
}
void state(const Memory *it, uint64_t *found) {
  found[0] = it->read_beats; found[1] = it->write_beats; found[2] = it->idle(); found[3] = it->broken;
  found[4] = it->broken_at;
}
}
