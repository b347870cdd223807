"""A recipe as one file of plain PyTorch, of lines of ``template.txt``; and as a recipe file to change."""
