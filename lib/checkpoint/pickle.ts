/**
 * Reads the pickle of a PyTorch file as a description of tensors, and as nothing else: it calls nothing, and names whatever it does not know. Opcodes
 * are those of protocol 2 that torch.save uses (CPython's Lib/pickletools.py, torch/_utils.py).
 * @module
 */
import { FormatError } from "../errors.ts";
import type { Dtype } from "./safetensors.ts";

/** Element types by the storage classes that stand for them. */
const STORAGES: Record<string, Dtype> = {
  "torch FloatStorage": "F32",
  "torch DoubleStorage": "F64",
  "torch HalfStorage": "F16",
  "torch BFloat16Storage": "BF16",
  "torch LongStorage": "I64",
  "torch IntStorage": "I32",
  "torch ShortStorage": "I16",
  "torch CharStorage": "I8",
  "torch ByteStorage": "U8",
  "torch BoolStorage": "BOOL",
};

const ORDERED_DICT = "collections OrderedDict",
  REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2",
  REBUILD_PARAMETER = "torch._utils _rebuild_parameter";

/** A global that is known, by its module and name. */
class Global {
  constructor(readonly name: string) {}
}

/** A storage: a member of the archive, and what its elements are. */
class Storage {
  constructor(readonly key: string, readonly dtype: Dtype, readonly elements: number) {}
}

/** A tensor as a pickle describes it; sizes, strides and offset count elements. */
export class PickledTensor {
  constructor(
    readonly storage: { key: string; dtype: Dtype; elements: number },
    readonly offset: number,
    readonly shape: number[],
    readonly stride: number[],
  ) {}
}

type Value = null | boolean | number | string | Value[] | Map<Value, Value> | Global | Storage | PickledTensor | typeof MARK;
const MARK = Symbol("mark");

function isCount(value: Value): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

/** The machine that a pickle is a program for. */
class Unpickler {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  readonly #stack: Value[] = [];
  readonly #memo = new Map<number, Value>();
  #at = 0;

  constructor(bytes: Uint8Array, where: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  #refuse(reason: string): FormatError {
    return new FormatError(`Cannot read ${this.#where}: its pickle ${reason}`);
  }

  #skip(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#bytes.length) throw this.#refuse("ends early");
    this.#at += bytes;
    return at;
  }

  #text(bytes: number): string {
    const at = this.#skip(bytes);
    return new TextDecoder().decode(this.#bytes.subarray(at, at + bytes));
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#at);
    if (end < 0) throw this.#refuse("ends early");
    const text = this.#text(end - this.#at);
    this.#at++;
    return text;
  }

  #pop(): Value {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) throw this.#refuse("takes a value where there is none");
    return value;
  }

  #popToMark(): Value[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) throw this.#refuse("takes values where there are none");
    return this.#stack.splice(mark).slice(1);
  }

  #top(): Value {
    const value = this.#pop();
    this.#stack.push(value);
    return value;
  }

  #tuple(count: number): void {
    const values: Value[] = [];
    for (let i = 0; i < count; i++) values.unshift(this.#pop());
    this.#stack.push(values);
  }

  #set(pairs: Value[]): void {
    const into = this.#top();
    if (!(into instanceof Map) || pairs.length % 2 !== 0) throw this.#refuse("sets items of what is no dictionary");
    for (let i = 0; i < pairs.length; i += 2) into.set(pairs[i], pairs[i + 1]);
  }

  #append(values: Value[]): void {
    const into = this.#top();
    if (!Array.isArray(into)) throw this.#refuse("appends to what is no list");
    into.push(...values);
  }

  #global(): void {
    const name = `${this.#line()} ${this.#line()}`;
    if (name !== ORDERED_DICT && name !== REBUILD_TENSOR && name !== REBUILD_PARAMETER && !Object.hasOwn(STORAGES, name)) {
      throw this.#refuse(`asks for ${JSON.stringify(name.replace(" ", "."))}, which is not needed to describe tensors`);
    }
    this.#stack.push(new Global(name));
  }

  #storage(): void {
    const id = this.#pop();
    const [kind, type, key, , elements] = Array.isArray(id) ? id : [];
    if (
      kind !== "storage" || !(type instanceof Global) || !Object.hasOwn(STORAGES, type.name) || typeof key !== "string" ||
      !isCount(elements)
    ) {
      throw this.#refuse("refers to something that is no storage");
    }
    this.#stack.push(new Storage(key, STORAGES[type.name], elements));
  }

  #reduce(): void {
    const given = this.#pop(), called = this.#pop();
    if (!(called instanceof Global) || !Array.isArray(given)) throw this.#refuse("calls something that is no global");
    switch (called.name) {
      case ORDERED_DICT:
        if (given.length > 0) throw this.#refuse("makes a dictionary of arguments");
        this.#stack.push(new Map());
        return;
      case REBUILD_TENSOR: {
        const [storage, offset, shape, stride] = given;
        const fits = storage instanceof Storage && isCount(offset) && Array.isArray(shape) && Array.isArray(stride) &&
          shape.length === stride.length && shape.every(isCount) && stride.every(isCount);
        if (!fits) throw this.#refuse("makes a tensor of something else than a storage, an offset, a shape and strides");
        this.#stack.push(new PickledTensor(storage, offset, [...shape] as number[], [...stride] as number[]));
        return;
      }
      case REBUILD_PARAMETER:
        if (!(given[0] instanceof PickledTensor)) throw this.#refuse("makes a parameter of what is no tensor");
        this.#stack.push(given[0]);
        return;
      default:
        throw this.#refuse(`calls ${JSON.stringify(called.name.replace(" ", "."))}`);
    }
  }

  /** Runs the program and returns what it leaves. */
  run(): Value {
    for (;;) {
      const start = this.#at, opcode = this.#bytes[this.#skip(1)];
      switch (String.fromCharCode(opcode)) {
        case "\x80": // PROTO
          if (this.#bytes[this.#skip(1)] !== 2) throw this.#refuse(`has protocol ${this.#bytes[this.#at - 1]}, required 2`);
          break;
        case "c": // GLOBAL
          this.#global();
          break;
        case "q": // BINPUT
          this.#memo.set(this.#bytes[this.#skip(1)], this.#top());
          break;
        case "r": // LONG_BINPUT
          this.#memo.set(this.#view.getUint32(this.#skip(4), true), this.#top());
          break;
        case "h": // BINGET
          this.#recall(this.#bytes[this.#skip(1)]);
          break;
        case "j": // LONG_BINGET
          this.#recall(this.#view.getUint32(this.#skip(4), true));
          break;
        case ")": // EMPTY_TUPLE
        case "]": // EMPTY_LIST
          this.#stack.push([]);
          break;
        case "}": // EMPTY_DICT
          this.#stack.push(new Map());
          break;
        case "(": // MARK
          this.#stack.push(MARK);
          break;
        case "t": // TUPLE
          this.#stack.push(this.#popToMark());
          break;
        case "\x85": // TUPLE1
        case "\x86": // TUPLE2
        case "\x87": // TUPLE3
          this.#tuple(opcode - 0x84);
          break;
        case "X": // BINUNICODE
          this.#stack.push(this.#text(this.#view.getUint32(this.#skip(4), true)));
          break;
        case "J": // BININT
          this.#stack.push(this.#view.getInt32(this.#skip(4), true));
          break;
        case "K": // BININT1
          this.#stack.push(this.#bytes[this.#skip(1)]);
          break;
        case "M": // BININT2
          this.#stack.push(this.#view.getUint16(this.#skip(2), true));
          break;
        case "\x8a": // LONG1
          this.#stack.push(this.#long(this.#bytes[this.#skip(1)]));
          break;
        case "G": // BINFLOAT
          this.#stack.push(this.#view.getFloat64(this.#skip(8), false));
          break;
        case "N": // NONE
          this.#stack.push(null);
          break;
        case "\x88": // NEWTRUE
        case "\x89": // NEWFALSE
          this.#stack.push(opcode === 0x88);
          break;
        case "s": { // SETITEM
          const value = this.#pop(), key = this.#pop();
          this.#set([key, value]);
          break;
        }
        case "u": // SETITEMS
          this.#set(this.#popToMark());
          break;
        case "a": // APPEND
          this.#append([this.#pop()]);
          break;
        case "e": // APPENDS
          this.#append(this.#popToMark());
          break;
        case "Q": // BINPERSID
          this.#storage();
          break;
        case "R": // REDUCE
          this.#reduce();
          break;
        case "b": // BUILD
          // Sets attributes; a state_dict has its modules' versions there.
          this.#pop();
          if (!(this.#top() instanceof Map)) throw this.#refuse("sets attributes of what is no dictionary");
          break;
        case ".": // STOP
          return this.#pop();
        default:
          throw this.#refuse(
            `has opcode 0x${opcode.toString(16).padStart(2, "0")} at byte ${start}, which is not needed to describe tensors`,
          );
      }
    }
  }

  #recall(key: number): void {
    const value = this.#memo.get(key);
    if (value === undefined) throw this.#refuse(`recalls value ${key}, which it never kept`);
    this.#stack.push(value);
  }

  /** A two's complement number of up to 255 bytes. */
  #long(bytes: number): number {
    const at = this.#skip(bytes);
    let value = 0n;
    for (let i = bytes - 1; i >= 0; i--) value = value << 8n | BigInt(this.#bytes[at + i]);
    if (bytes > 0 && this.#bytes[at + bytes - 1] & 128) value -= 1n << BigInt(8 * bytes);
    return Number(value);
  }
}

/**
 * Returns the tensors that a pickled dictionary holds, by name.
 * @param where Path of the file, for messages.
 * @throws {FormatError} for any opcode or global that describes something else than tensors, and for damage.
 */
export function unpickleTensors(pickle: Uint8Array, where: string): Map<string, PickledTensor> {
  const value = new Unpickler(pickle, where).run();
  if (!(value instanceof Map)) throw new FormatError(`Cannot read ${where}: its pickle holds no dictionary of tensors`);
  const tensors = new Map<string, PickledTensor>();
  for (const [name, tensor] of value) {
    if (typeof name !== "string" || !(tensor instanceof PickledTensor)) {
      throw new FormatError(`Cannot read ${where}: its pickle holds ${JSON.stringify(String(name))}, which is no tensor`);
    }
    tensors.set(name, tensor);
  }
  return tensors;
}
