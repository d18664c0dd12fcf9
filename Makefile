# make demo   paint the kingfisher after the café terrace, by optimisation and in one pass
# make web    open a page to paint on, at http://127.0.0.1:7860
# make test   lint, types and tests
# Both set up what they need in $(VENV) first, once. More targets: CONTRIBUTING.md.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
# Used only where the environment has no torch yet; a CPU build does.
PINNED := torch==2.13.0
TORCH ?= $(PINNED)

# The lesson as `make lesson` runs it; it comes executed at 192 pixels and 60 steps.
LESSON_SIZE ?= 128
LESSON_STEPS ?= 40

run := $(VENV)/bin/python -m
ready := $(VENV)/.impasto-ready
browser := $(VENV)/.impasto-browser
samples := src/impasto/pictures/samples

.PHONY: demo web cluster serving test lint format lesson bench painted one-pass adversaries encoders reconstruction gallery answers parts clean

demo: $(ready)
	$(VENV)/bin/impasto stylize $(samples)/photos/kingfisher.jpg \
		--style $(samples)/paintings/cafe_terrace_at_night.jpg \
		--output demo.png --force
	$(VENV)/bin/impasto apply $(samples)/photos/kingfisher.jpg --style cafe_terrace_at_night \
		--output demo-one-pass.png --force

web: $(ready)
	$(VENV)/bin/impasto web

# A thread for each process: pictures in tests are small, and threads would wait for each other.
test: lint $(browser)
	OMP_NUM_THREADS=1 $(run) pytest --numprocesses auto --maxprocesses 4

lint: $(ready)
	$(run) ruff check .
	$(run) ruff format --check .
	$(VENV)/bin/lint-imports
ifeq ($(TORCH),$(PINNED))
	$(run) mypy
else
	@echo "types are not checked: they are those of $(PINNED)"
endif

format: $(ready)
	$(run) ruff check --fix .
	$(run) ruff format .

lesson: $(ready)
	LESSON_SIZE=$(LESSON_SIZE) LESSON_STEPS=$(LESSON_STEPS) $(VENV)/bin/python examples/lesson.py
	$(VENV)/bin/python examples/lesson.py one_pass.ipynb
	$(VENV)/bin/python examples/lesson.py adversaries.ipynb

# Workers on a cluster, with a real Ray (some hundred megabytes, so that it is no part of `test`).
cluster: $(ready)
	$(run) pip install --quiet --editable ".[cluster]"
	OMP_NUM_THREADS=1 $(run) pytest cluster_tests

# The tables of docs/serving.md.
serving: $(ready)
	$(VENV)/bin/python benchmarks/serve.py
	$(VENV)/bin/python benchmarks/batch.py

bench: $(ready)
	$(VENV)/bin/python benchmarks/bench.py bench.md

painted: $(ready)
	$(VENV)/bin/python benchmarks/painted.py

one-pass: $(ready)
	$(run) pip install --quiet --editable ".[bench]"
	$(VENV)/bin/python benchmarks/one_pass.py

# The figures and tables of docs/adversaries.md. The networks need a folder of photos: PHOTOS=...
adversaries: $(ready)
	$(VENV)/bin/python benchmarks/adversaries.py $(if $(PHOTOS),--photos "$(PHOTOS)") \
		ring failures patches $(if $(PHOTOS),networks) sheets
	$(if $(PHOTOS),,@echo "the one-pass networks are left out: give a folder of photos, PHOTOS=...")

reconstruction: $(ready)
	$(VENV)/bin/python benchmarks/reconstruction.py

# The figures of "Would a ResNet do?" in docs/answers.md, and the tables.
encoders: $(ready)
	$(VENV)/bin/python benchmarks/encoders.py keeps --photos kingfisher --size 160 --evaluations 300 \
		--layers $(foreach kind,merge expand depthwise project,$(foreach n,2 4 7 10,block$(n).$(kind))) \
		--sheet docs/answers/encoder-keeps.jpg
	$(VENV)/bin/python benchmarks/encoders.py textures --paintings great_wave --size 128 \
		--sheet docs/answers/encoder-textures.jpg
	$(VENV)/bin/python benchmarks/encoders.py style --size 192 --steps 60 \
		--photos neuschwanstein kingfisher owl scarlet_macaw --paintings night_cafe great_wave \
		composition_viii church_at_auvers cafe_terrace_at_night --sheet docs/answers/encoder-layers.jpg
	$(VENV)/bin/python benchmarks/encoders.py smooth --size 160 --steps 80 \
		--photos kingfisher neuschwanstein --paintings great_wave night_cafe
	$(VENV)/bin/python benchmarks/encoders.py cost --sizes 512
	$(VENV)/bin/python benchmarks/encoders.py convolutions

answers: $(ready)
	$(VENV)/bin/python examples/answers.py

parts: $(ready)
	$(VENV)/bin/python examples/parts.py

gallery: $(ready)
	$(VENV)/bin/python examples/gallery.py

clean:
	rm -rf .venv build dist demo.png demo-one-pass.png bench.md

$(ready): pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(run) pip --version >/dev/null
	$(run) pip show --quiet torch 2>/dev/null || $(run) pip install --quiet "$(TORCH)"
	$(run) pip install --quiet --editable ".[dev]"
	touch $@

# The page is tested in Chromium; where it is missing and apt-get is there, it is installed.
$(browser): $(ready)
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
		{ apt-get update -qq && apt-get install -qq -y chromium >/dev/null; }
	touch $@
